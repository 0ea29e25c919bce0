"use strict";
// Slices of a case, cut from the volumes that the page carries. Arrays are z y x; a
// slice is shown radiologically: both of its axes reversed.
const Slices = {
  bytes(base64) {
    return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  },
  // value, length, value, length ...: see bmjax/report/packing.py
  unpackRuns(bytes, length) {
    const values = new Uint8Array(length);
    let at = 0;
    for (let i = 0; i < bytes.length;) {
      const value = bytes[i++];
      let run = 0, shift = 1;
      for (;;) {
        const part = bytes[i++];
        run += (part & 127) * shift;
        if (part < 128) break;
        shift *= 128;
      }
      values.fill(value, at, at + run);
      at += run;
    }
    return values;
  },
  // grey values of tiles: slice i is tile i of the picture
  untile(rgba, width, columns, size) {
    const [num, rows, across] = size;
    const values = new Uint8Array(num * rows * across);
    let k = 0;
    for (let i = 0; i < num; i++) {
      const top = Math.floor(i / columns) * rows, left = (i % columns) * across;
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < across; c++) values[k++] = rgba[4 * ((top + r) * width + left + c)];
      }
    }
    return values;
  },
  axes(axis) {
    return [0, 1, 2].filter((other) => other !== axis);
  },
  cut(values, size, axis, index) {
    const [row, column] = Slices.axes(axis);
    const step = [size[1] * size[2], size[2], 1];
    const rows = size[row], columns = size[column];
    const shown = new Uint8Array(rows * columns);
    let k = 0;
    for (let r = rows - 1; r >= 0; r--) {
      for (let c = columns - 1; c >= 0; c--) {
        shown[k++] = values[index * step[axis] + r * step[row] + c * step[column]];
      }
    }
    return { rows, columns, values: shown };
  },
  // the exact border of a label: x0, y0, x1, y1 of each voxel edge
  edges(slice, value) {
    const { rows, columns, values } = slice;
    const is = (r, c) => r >= 0 && c >= 0 && r < rows && c < columns && values[r * columns + c] === value;
    const found = [];
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        if (!is(r, c)) continue;
        if (!is(r - 1, c)) found.push(c, r, c + 1, r);
        if (!is(r + 1, c)) found.push(c, r + 1, c + 1, r + 1);
        if (!is(r, c - 1)) found.push(c, r, c, r + 1);
        if (!is(r, c + 1)) found.push(c + 1, r, c + 1, r + 1);
      }
    }
    return found;
  },
  // an affine of x, y, z applied to a place in x, y, z
  apply(affine, place) {
    return [0, 1, 2].map((i) => affine[i][3] + place.reduce((sum, v, j) => sum + affine[i][j] * v, 0));
  },
  nearestVoxel(data, mm) {
    const [x, y, z] = Slices.apply(data.to_vox, mm);
    return [z, y, x].map((v, a) => Math.min(Math.max(Math.round(v), 0), data.size[a] - 1));
  },
  placeMm(data, voxel) {
    return Slices.apply(data.to_mm, [voxel[2], voxel[1], voxel[0]]);
  },
  // what a map's byte looks like: red, green, blue, opacity
  colour(level, isSigned) {
    if (isSigned) {
      const t = Math.max(-1, (level - 128) / 127);
      return t < 0 ? [86, 180, 233, -230 * t] : [255, 140, 66, 230 * t];
    }
    const stops = [[66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]];
    const t = (level / 255) * (stops.length - 1), i = Math.min(Math.floor(t), stops.length - 2);
    const rgb = stops[i].map((v, j) => Math.round(v + (t - i) * (stops[i + 1][j] - v)));
    return [...rgb, Math.min(230, 2 * level)];
  },
};

class Viewer {
  constructor(box) {
    this.box = box;
    this.article = box.closest(".case");
    this.source = box.querySelector("script");
    this.cuts = [...box.querySelectorAll(".cut")].map((cut) => ({
      axis: Number(cut.dataset.axis), canvas: cut.querySelector("canvas"), range: cut.querySelector("input"),
    }));
    this.volumes = new Map();
    this.data = null;
    box.addEventListener("toggle", () => this.open());
    if (box.open) {
      const seen = new IntersectionObserver((entries) => {
        if (entries.some((entry) => entry.isIntersecting)) { seen.disconnect(); this.open(); }
      }, { rootMargin: "400px" });
      seen.observe(box);
    }
  }

  // nothing is unpacked before a reader comes near
  open() {
    if (this.data || !this.box.open) return;
    const data = this.data = JSON.parse(this.source.textContent);
    this.at = [...data.focus];
    this.length = data.size.reduce((a, b) => a * b);
    if (data.reference) this.volumes.set("reference", this.labels(data.reference));
    this.choice = { channel: data.channels[0].name, prediction: data.predictions[0]?.name, map: "" };
    for (const select of this.box.querySelectorAll("select")) {
      select.addEventListener("change", () => {
        this.choice[select.dataset.choice] = select.value;
        this.draw();
      });
    }
    for (const button of this.box.querySelectorAll("button[data-mm]")) {
      button.addEventListener("click", () => this.goTo(button.dataset.mm.split(" ").map(Number)));
    }
    const near = this.box.querySelector(".near");
    near.addEventListener("click", () => {
      this.isNear = !this.isNear;
      near.setAttribute("aria-pressed", String(this.isNear));
      this.draw();
    });
    for (const cut of this.cuts) this.listen(cut);
    this.article.addEventListener("shown", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.box);
    this.draw();
  }

  labels(text) {
    return Slices.unpackRuns(Slices.bytes(text), this.length);
  }

  listen(cut) {
    const { axis, canvas, range } = cut;
    range.addEventListener("input", () => this.move({ [axis]: Number(range.value) }));
    const turn = (event, by) => {
      event.preventDefault();
      this.move({ [axis]: this.at[axis] + by });
    };
    const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 5, PageDown: -5 };
    canvas.addEventListener("keydown", (event) => {
      if (event.key in steps) turn(event, steps[event.key]);
      if (event.key === "Home") turn(event, -this.at[axis]);
      if (event.key === "End") turn(event, this.data.size[axis]);
    });
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement === canvas && event.deltaY) turn(event, event.deltaY > 0 ? -1 : 1);
    }, { passive: false });
    const point = (event) => {
      const box = canvas.getBoundingClientRect(), view = this.view(axis);
      const mm = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
      const moved = {};
      Slices.axes(axis).forEach((other, i) => {
        const from = view.start[i] + mm[i] * view.side;
        moved[other] = this.data.size[other] - 1 - Math.floor(from / this.data.spacing_mm[other]);
      });
      this.move(moved);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      if (!this.isNear) point(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons & 1 && !this.isNear) point(event);
    });
    canvas.addEventListener("click", (event) => { if (this.isNear) point(event); });
  }

  move(places) {
    for (const [axis, index] of Object.entries(places)) {
      this.at[axis] = Math.min(Math.max(index, 0), this.data.size[axis] - 1);
    }
    this.draw();
  }

  goTo(mm) {
    this.box.open = true;
    this.open();
    this.at = Slices.nearestVoxel(this.data, mm);
    this.draw();
    this.box.querySelector(".cuts").scrollIntoView({ block: "center" });
  }

  // the part of a plane that is shown: its upper left corner and its side [mm]
  view(axis) {
    const { size, spacing_mm: spacing } = this.data, axes = Slices.axes(axis);
    const whole = 6 + Math.max(...size.map((n, a) => n * spacing[a]));
    const side = this.isNear ? Math.min(56, whole) : whole;
    const start = axes.map((a) => {
      const middle = this.isNear ? (size[a] - 0.5 - this.at[a]) * spacing[a] : size[a] * spacing[a] / 2;
      return middle - side / 2;
    });
    return { start, side };
  }

  // grey values of a channel or a map; drawn again once the picture is decoded
  grey(entry) {
    if (this.volumes.has(entry)) return this.volumes.get(entry);
    this.volumes.set(entry, null);
    const picture = new Image();
    picture.onload = () => {
      const sheet = document.createElement("canvas");
      [sheet.width, sheet.height] = [picture.naturalWidth, picture.naturalHeight];
      const context = sheet.getContext("2d", { willReadFrequently: true });
      context.drawImage(picture, 0, 0);
      const { data } = context.getImageData(0, 0, sheet.width, sheet.height);
      this.volumes.set(entry, Slices.untile(data, sheet.width, entry.columns, entry.size));
      this.draw();
    };
    picture.src = entry.src;
    return null;
  }

  predicted() {
    const entry = this.data.predictions.find((p) => p.name === this.choice.prediction);
    if (!entry) return null;
    if (!this.volumes.has(entry)) this.volumes.set(entry, this.labels(entry.runs));
    return this.volumes.get(entry);
  }

  draw() {
    const { data } = this;
    const channel = data.channels.find((c) => c.name === this.choice.channel);
    const map = data.maps.find((m) => m.name === this.choice.map);
    for (const { axis, canvas, range } of this.cuts) {
      range.value = this.at[axis];
      const pixels = Math.round(canvas.clientWidth * Math.min(devicePixelRatio || 1, 2));
      if (pixels) this.drawCut(canvas, axis, pixels, channel, map);
    }
    this.say(map);
    this.box.dataset.at = this.at.join(" ");
  }

  drawCut(canvas, axis, pixels, channel, map) {
    const { size, spacing_mm: spacing, labels } = this.data;
    const [row, column] = Slices.axes(axis), view = this.view(axis);
    const context = canvas.getContext("2d"), scale = pixels / view.side;
    canvas.width = canvas.height = pixels;
    context.fillStyle = "#000";
    context.fillRect(0, 0, pixels, pixels);
    // from here on a unit is a voxel of the whole slice
    const inVoxels = () => context.setTransform(
      scale * spacing[column], 0, 0, scale * spacing[row], -view.start[1] * scale, -view.start[0] * scale);
    inVoxels();
    const grey = this.grey(channel);
    if (grey) this.paint(context, grey, channel, axis, (v) => [v, v, v, 255], true);
    const levels = map && this.grey(map);
    if (levels) this.paint(context, levels, map, axis, (v) => Slices.colour(v, map.signed), true);
    const hidden = (name) => this.article.classList.contains("hide-" + name);
    const reference = this.volumes.get("reference"), predicted = this.predicted();
    const shown = labels.filter((label) => !hidden("label-" + label.name));
    if (reference && !hidden("reference")) {
      const whole = { size, stride: [1, 1, 1] };
      const colours = new Map(shown.map(({ value, colour }) => [value, [...Viewer.rgb(colour), map ? 40 : 115]]));
      this.paint(context, reference, whole, axis, (v) => colours.get(v) ?? [0, 0, 0, 0], false);
    }
    if (predicted && !hidden("prediction")) {
      const slice = Slices.cut(predicted, size, axis, this.at[axis]);
      for (const { value, colour } of shown) {
        context.beginPath();
        const edges = Slices.edges(slice, value);
        for (let i = 0; i < edges.length; i += 4) {
          context.moveTo(edges[i], edges[i + 1]);
          context.lineTo(edges[i + 2], edges[i + 3]);
        }
        context.setTransform(1, 0, 0, 1, 0, 0);
        context.lineCap = "square";
        for (const [style, width] of [["#000a", 3.2], [colour, 1.7]]) {
          context.strokeStyle = style;
          context.lineWidth = width * pixels / canvas.clientWidth;
          context.stroke();
        }
        inVoxels();
      }
    }
    this.cross(context, pixels, scale, view, row, column);
  }

  paint(context, values, volume, axis, colour, isSmooth) {
    const [row, column] = Slices.axes(axis), { size, stride } = volume;
    const index = Math.min(Math.floor(this.at[axis] / stride[axis]), size[axis] - 1);
    const slice = Slices.cut(values, size, axis, index);
    const picture = new ImageData(slice.columns, slice.rows);
    const palette = Array.from({ length: 256 }, (_, v) => colour(v));
    slice.values.forEach((v, i) => picture.data.set(palette[v], 4 * i));
    const sheet = document.createElement("canvas");
    [sheet.width, sheet.height] = [slice.columns, slice.rows];
    sheet.getContext("2d").putImageData(picture, 0, 0);
    context.imageSmoothingEnabled = isSmooth;
    // coarse voxels are counted from the far end, where the first voxel is shown
    const width = slice.columns * stride[column], height = slice.rows * stride[row];
    context.drawImage(sheet, this.data.size[column] - width, this.data.size[row] - height, width, height);
  }

  cross(context, pixels, scale, view, row, column) {
    const { size, spacing_mm: spacing } = this.data;
    const [y, x] = [row, column].map((a, i) =>
      ((size[a] - 0.5 - this.at[a]) * spacing[a] - view.start[i]) * scale);
    const gap = 10 * pixels / 300;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.strokeStyle = "#ffffff99";
    context.lineWidth = Math.max(1, pixels / 500);
    context.beginPath();
    for (const [x0, y0, x1, y1] of [[0, y, x - gap, y], [x + gap, y, pixels, y],
      [x, 0, x, y - gap], [x, y + gap, x, pixels]]) {
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
    }
    context.stroke();
  }

  say(map) {
    const { size } = this.data, mm = Slices.placeMm(this.data, this.at);
    const offset = (this.at[0] * size[1] + this.at[1]) * size[2] + this.at[2];
    const name = (values) => {
      const value = values[offset];
      return value ? this.data.labels.find((l) => l.value === value)?.name ?? String(value) : "none";
    };
    const parts = ["x, y, z: " + mm.map((v) => v.toFixed(1).replace("-", "\u2212")).join(", ") + " mm (RAS+)"];
    const reference = this.volumes.get("reference"), predicted = this.predicted();
    if (reference) parts.push("reference: " + name(reference));
    if (predicted) parts.push("prediction: " + name(predicted));
    this.box.querySelector(".place").textContent = parts.join("  \u00b7  ");
    const scale = this.box.querySelector(".scale");
    scale.replaceChildren();
    if (!map) return;
    const ramp = document.createElement("i"), top = map.strongest.toPrecision(3);
    const colours = Array.from({ length: 9 }, (_, i) =>
      Slices.colour(map.signed ? 1 + Math.round(i * 254 / 8) : Math.round(i * 255 / 8), map.signed));
    ramp.style.background = "linear-gradient(to right," +
      colours.map(([r, g, b, a]) => `rgba(${r},${g},${b},${a / 255})`).join(",") + "),#000";
    scale.append((map.signed ? "\u2212" + top : "0") + " ", ramp, " " + top);
  }

  static rgb(hex) {
    return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  }
}

if (typeof document !== "undefined") {
  const byCase = new Map();
  for (const box of document.querySelectorAll(".viewer")) {
    byCase.set(box.querySelector("script").dataset.case, new Viewer(box));
  }
  for (const link of document.querySelectorAll("a[data-jump]")) {
    link.addEventListener("click", (event) => {
      const viewer = byCase.get(link.dataset.jump);
      if (!viewer) return;
      event.preventDefault();
      viewer.goTo(link.dataset.mm.split(" ").map(Number));
    });
  }
} else {
  module.exports = { Slices };
}
