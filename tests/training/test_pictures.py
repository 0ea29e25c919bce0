import numpy as np

from bmjax.training.pictures import picture


def test_a_picture_shows_image_labels_and_prediction_of_the_fullest_slice(rng):
    image = rng.normal(size=(4, 6, 5, 2)).astype(np.float32)
    labels = np.zeros((4, 6, 5), np.int8)
    labels[2, 1:4, 1:4] = 3
    predicted = np.zeros((4, 6, 5, 3), bool)
    predicted[2, 2, 2] = True
    shown = picture(image, labels, predicted)
    assert shown.shape == (6, 15, 3)
    assert shown.dtype == np.uint8
    plain, truth, guess = np.split(shown.astype(int), 3, axis=1)
    where = np.any(truth != plain, axis=-1)
    np.testing.assert_array_equal(where[labels[2] > 0], True)
    assert not where[labels[2] == 0].any()
    assert np.any(guess != plain, axis=-1).sum() == 1


def test_a_flat_patch_of_a_slice_network_is_shown_too():
    image = np.ones((6, 5, 1), np.float32)
    labels, predicted = np.zeros((6, 5), np.int8), np.zeros((6, 5, 1), bool)
    assert picture(image, labels, predicted).shape == (6, 15, 3)
