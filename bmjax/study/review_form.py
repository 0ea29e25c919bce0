"""The form of an expert review, as a page that saves what was filled in as CSV."""

import html
import json
from collections.abc import Mapping, Sequence

GRADES = (1, 2, 3, 4, 5)
GRADED = ("overall", "ET", "TC", "WT")
QUESTIONS = {
    "overall": "1 unusable, 2 poor, 3 needs much correction, 4 little, 5 none",
    "ET": "the same of the enhancing tumour",
    "TC": "the same of the tumour core",
    "WT": "the same of the whole tumour with its oedema",
    "lesions_missed": "number of real lesions without any prediction",
    "lesions_invented": "number of predicted lesions that are none",
    "comment": "anything else",
}
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem;
       padding: 0 1rem; color-scheme: light dark }
table { border-collapse: collapse; width: 100% }
th, td { padding: .3rem .45rem; text-align: left; border-bottom: 1px solid #8888 }
td:first-child { white-space: nowrap }
input, select, button { font: inherit }
td > input, td > select { width: 100%; box-sizing: border-box }
button { padding: .4rem .9rem; margin: 1rem 0 }
label { display: block; margin: 1rem 0 }
dt { font-weight: 600 }
dd { margin: 0 0 .3rem }
"""
_SCRIPT = """
const columns = __COLUMNS__;
const fields = [...document.querySelectorAll('input, select')];
const place = document.title + location.pathname;
const old = JSON.parse(localStorage.getItem(place) || '[]');
fields.forEach((field, i) => {
  if (old[i]) field.value = old[i];
  field.addEventListener('change', () =>
    localStorage.setItem(place, JSON.stringify(fields.map(f => f.value))));
});
const quote = text => '"' + String(text).replaceAll('"', '""') + '"';
document.querySelector('button').addEventListener('click', () => {
  const reader = document.querySelector('#reader').value.trim();
  if (!reader) { alert('Please fill in who reads.'); return; }
  const lines = [...document.querySelectorAll('tbody tr')].map(row => [
    row.dataset.case, row.dataset.prediction, reader,
    ...columns.slice(3).map(name => row.querySelector(`[name=${name}]`).value),
  ].map(quote).join(','));
  const text = [columns.join(','), ...lines].join('\\n') + '\\n';
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type: 'text/csv'}));
  link.download = 'form_' + reader.replace(/[^\\w-]+/g, '_') + '.csv';
  link.click();
});
"""


def form_page(rows: Sequence[Mapping[str, str]]) -> str:
    """A self-contained page; nothing is sent, a button saves the CSV.

    Args:
      rows: `case` and `prediction` of each line.
    """
    columns = ("case", "prediction", "reader", *QUESTIONS)
    heads = "".join(f"<th>{html.escape(n)}</th>" for n in columns if n != "reader")
    lines = "".join(
        f'<tr data-case="{html.escape(row["case"])}" '
        f'data-prediction="{html.escape(row["prediction"])}">'
        f"<td>{html.escape(row['case'])}</td><td>{html.escape(row['prediction'])}</td>"
        f"{''.join(map(_cell, QUESTIONS))}</tr>"
        for row in rows
    )
    meaning = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>"
        for name, text in QUESTIONS.items()
    )
    title = f"Review of {len({row['case'] for row in rows})} cases"
    script = _SCRIPT.replace("__COLUMNS__", json.dumps(columns))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f"<dl>{meaning}</dl><label>Reader <input id='reader'></label>"
        f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
        f"<button type='button'>Save as CSV</button><script>{script}</script>"
        "</body></html>\n"
    )


def _cell(name: str) -> str:
    if name in GRADED:
        options = "".join(f"<option>{grade}</option>" for grade in GRADES)
        return f'<td><select name="{name}"><option></option>{options}</select></td>'
    kind = "text" if name == "comment" else "number"
    return f'<td><input name="{name}" type="{kind}" min="0"></td>'
