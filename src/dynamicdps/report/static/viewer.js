"use strict";
// The viewer of a report: images under one window, maps over them, one crosshair in three planes. NiiVue draws; what is said is HTML.
(() => {
  const SHARE_OF_HEIGHT = 0.72; // of the window's, at most
  const HEADER = 352; // bytes of a NIfTI file before its voxels
  const FRONT = 0;
  const BACK = 1;
  const UNREAD = "\u2026"; // of a value whose volume is not unpacked yet
  const TRANSLUCENT_BELOW_MINIMUM = 1; // what NiiVue 0.69 draws so; its COLORMAP_TYPE names 2, which cuts off instead

  const find = (id) => document.getElementById(id);
  const settings = JSON.parse(find("viewer-settings").textContent);

  function fallBack(reason) {
    const note = find("no-viewer");
    note.textContent = `${reason} These are pre-rendered slices instead of the viewer.`;
    note.hidden = false;
    find("viewer").hidden = true;
    find("slices").hidden = false;
  }

  if (!document.createElement("canvas").getContext("webgl2")) {
    fallBack("This browser offers no WebGL 2.");
    return;
  }
  if (typeof DecompressionStream === "undefined") {
    fallBack("This browser is older than 2023.");
    return;
  }

  function fail(error) {
    fallBack(`The viewer could not go on (${error.message}).`);
  }

  // What goes on beside the page's events; where it fails, the page falls back to its slices.
  function watched(work) {
    work?.catch(fail);
  }

  function bytesOf(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes;
  }

  async function unpack(packed) {
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  // A NIfTI file of its header and the differences between neighbouring voxels, as embed.py writes them.
  function restored(buffer) {
    const bits = new DataView(buffer).getInt16(72, true);
    const bytes = new Uint8Array(buffer, HEADER);
    if (bits === 8) {
      for (let i = 0, value = 0; i < bytes.length; i++) {
        value = (value + ((bytes[i] >>> 1) ^ -(bytes[i] & 1))) & 255;
        bytes[i] = value;
      }
      return buffer;
    }
    const count = bytes.length / 2;
    const values = new Int16Array(count);
    for (let i = 0, value = 0; i < count; i++) {
      const folded = bytes[i] | (bytes[count + i] << 8);
      value = ((value + ((folded >>> 1) ^ -(folded & 1))) << 16) >> 16;
      values[i] = value;
    }
    bytes.set(new Uint8Array(values.buffer));
    return buffer;
  }

  // A volume of the page. It is unpacked when something first asks for it, once, and becomes a texture's image only to be drawn.
  class Volume {
    constructor(entry) {
      this.entry = entry;
    }

    read() {
      this.reading ??= this.unpack();
      return this.reading;
    }

    async unpack() {
      const element = find(this.entry.id);
      this.buffer = restored(await unpack(bytesOf(element.textContent)));
      element.remove();
      const view = new DataView(this.buffer);
      this.dims = [42, 44, 46].map((at) => view.getInt16(at, true));
      this.bits = view.getInt16(72, true);
      this.offset = view.getFloat32(108, true);
      this.slope = view.getFloat32(112, true);
      this.intercept = view.getFloat32(116, true);
      const kind = this.bits === 8 ? Uint8Array : Int16Array;
      this.levels = new kind(this.buffer, this.offset, this.dims[0] * this.dims[1] * this.dims[2]);
      this.affine = [280, 296, 312].map((row) => [0, 4, 8, 12].map((at) => view.getFloat32(row + at, true)));
      this.inverse = inverted(this.affine);
      return this;
    }

    // Voxel indices, not rounded, of a place in mm.
    index(mm) {
      return transformed(this.inverse, mm);
    }

    get spacing() {
      return [0, 1, 2].map((axis) => Math.hypot(...this.affine.map((row) => row[axis])));
    }

    sameGrid(other) {
      const close = (row, i) => row.every((v, j) => Math.abs(v - other.affine[i][j]) < 1e-3);
      return this.dims.every((n, i) => n === other.dims[i]) && this.affine.every(close);
    }

    // As NiiVue draws it: of an image on another grid than the reference's, its nearest voxels there, so that all have one geometry.
    image(reference) {
      this.drawn ??= this.draw(reference);
      return this.drawn;
    }

    async draw(reference) {
      await this.read();
      const file = reference === null || this.sameGrid(reference) ? this.buffer : onGrid(this, reference);
      this.buffer = null; // the levels hold on to it for as long as values are read
      return niivue.NVImage.new(file, `${this.entry.id}.nii`);
    }
  }

  function transformed(matrix, [x, y, z]) {
    return matrix.map(([a, b, c, d]) => a * x + b * y + c * z + d);
  }

  // Of an affine matrix, its three rows.
  function inverted([a, b, c]) {
    const cross = (u, v) => [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    const columns = [cross(b, c), cross(c, a), cross(a, b)];
    const determinant = a[0] * columns[0][0] + a[1] * columns[0][1] + a[2] * columns[0][2];
    return [0, 1, 2].map((i) => {
      const row = columns.map((column) => column[i] / determinant);
      return [...row, -(row[0] * a[3] + row[1] * b[3] + row[2] * c[3])];
    });
  }

  // A NIfTI file of a volume's nearest voxels on the reference's grid; its values at the crosshair are read from its own voxels.
  function onGrid(volume, reference) {
    const [nx, ny, nz] = reference.dims;
    const [mx, my, mz] = volume.dims;
    const to = (index) => volume.index(transformed(reference.affine, index));
    const origin = to([0, 0, 0]);
    const axes = [to([1, 0, 0]), to([0, 1, 0]), to([0, 0, 1])].map((v) => v.map((w, i) => w - origin[i]));
    const zero = Math.round((0 - volume.intercept) / volume.slope);
    const out = new volume.levels.constructor(nx * ny * nz).fill(zero);
    let at = 0;
    for (let k = 0; k < nz; k++) {
      for (let j = 0; j < ny; j++) {
        for (let i = 0; i < nx; i++, at++) {
          const x = Math.round(origin[0] + i * axes[0][0] + j * axes[1][0] + k * axes[2][0]);
          const y = Math.round(origin[1] + i * axes[0][1] + j * axes[1][1] + k * axes[2][1]);
          const z = Math.round(origin[2] + i * axes[0][2] + j * axes[1][2] + k * axes[2][2]);
          if (x >= 0 && y >= 0 && z >= 0 && x < mx && y < my && z < mz) out[at] = volume.levels[x + mx * (y + my * z)];
        }
      }
    }
    const header = volume.buffer.slice(0, volume.offset);
    const view = new DataView(header);
    reference.dims.forEach((n, i) => view.setInt16(42 + 2 * i, n, true));
    reference.spacing.forEach((mm, i) => view.setFloat32(80 + 4 * i, mm, true));
    reference.affine.forEach((row, i) => row.forEach((v, j) => view.setFloat32(280 + 16 * i + 4 * j, v, true)));
    const file = new Uint8Array(header.byteLength + out.byteLength);
    file.set(new Uint8Array(header), 0);
    file.set(new Uint8Array(out.buffer), header.byteLength);
    return file.buffer;
  }

  class Viewer {
    constructor(images, maps, reference) {
      this.images = images;
      this.maps = maps;
      this.volumes = [...images, ...maps];
      this.reference = images[reference];
      this.shown = settings.first;
      this.other = images.length > 1 ? (settings.first + images.length - 1) % images.length : settings.first;
      this.map = -1;
      this.outlined = false;
      this.swiping = false;
      this.radiological = false;
      this.timer = 0;
      this.turn = 0;
      this.screens = [];
    }

    async open(place) {
      const canvas = find(place === FRONT ? "canvas-front" : "canvas-back");
      const screen = await slices.open(canvas);
      screen.opts.isRadiologicalConvention = this.radiological;
      this.screens[place] = screen;
      canvas.tabIndex = -1;
      for (const [index, { entry }] of this.maps.entries()) {
        screen.addColormap(`positive-${index}`, entry.positive);
        if (entry.negative) screen.addColormap(`negative-${index}`, entry.negative);
      }
      screen.onLocationChange = (location) => this.moved(place, location);
      return screen;
    }

    async start() {
      await Promise.all([this.open(FRONT), this.reference.read(), this.images[this.shown].read()]);
      for (const slider of document.querySelectorAll("[data-axis]")) {
        const count = this.reference.dims[slider.dataset.axis];
        slider.max = String(count - 1);
        slider.parentElement.hidden = count === 1;
      }
      this.layOut();
      await this.refresh();
      this.jump(settings.crosshair);
    }

    // Volumes of one screen, in the order in which NiiVue draws them.
    async layers(index) {
      const image = await this.images[index].image(this.reference);
      const numbers = [this.map, this.outlined ? settings.outline : -1].filter((number) => number >= 0);
      return [image, ...(await Promise.all(numbers.map((number) => this.layer(number))))];
    }

    async layer(number) {
      const { entry } = this.maps[number];
      const map = await this.maps[number].image(null);
      map.colormap = `positive-${number}`;
      map.cal_min = entry.low;
      map.cal_max = entry.high;
      map.colormapNegative = entry.negative ? `negative-${number}` : "";
      map.cal_minNeg = entry.negative ? -entry.high : NaN;
      map.cal_maxNeg = entry.negative ? -entry.low : NaN;
      map.colormapType = TRANSLUCENT_BELOW_MINIMUM;
      return map;
    }

    window() {
      const [low, high] = settings.window;
      const share = (id) => Number(find(id).value) / 100;
      const black = share("window-low");
      return [low + black * (high - low), low + Math.max(share("window-high"), black + 0.01) * (high - low)];
    }

    // Draw what is chosen, once it is unpacked; where something else is chosen meanwhile, that.
    async refresh() {
      const turn = ++this.turn;
      find("screen").setAttribute("aria-busy", "true");
      const chosen = this.swiping ? [this.shown, this.other] : [this.shown];
      const layers = await Promise.all(chosen.map((index) => this.layers(index)));
      if (turn !== this.turn) return;
      for (const [place, volumes] of layers.entries()) {
        const screen = this.screens[place];
        volumes[0].colormap = "gray";
        [volumes[0].cal_min, volumes[0].cal_max] = this.window();
        screen.volumes = volumes;
        screen.overlays = volumes.slice(1);
        screen.back = volumes[0];
        screen.overlayAlphaShader = Number(find("opacity")?.value ?? 100) / 100;
        screen.updateGLVolume();
      }
      this.say();
      this.sayValues();
      find("screen").setAttribute("aria-busy", "false");
    }

    // Values of volumes that are not shown are read when someone first goes into the slices.
    async readAll() {
      this.all ??= (async () => {
        for (const volume of this.volumes) {
          await volume.read();
          this.sayValues();
        }
        find("unread").hidden = true;
      })();
      return this.all;
    }

    say() {
      const name = (index) => this.images[index].entry.name;
      const over = this.map < 0 ? "" : ` + ${this.maps[this.map].entry.name}`;
      const text = this.swiping ? `${name(this.shown)} | ${name(this.other)}${over}` : `${name(this.shown)}${over}`;
      if (find("shown").textContent !== text) find("shown").textContent = text;
      for (const button of document.querySelectorAll("[data-image]")) {
        button.setAttribute("aria-pressed", String(Number(button.dataset.image) === this.shown));
      }
      const select = find("other");
      if (select) select.value = String(this.other);
      for (const key of document.querySelectorAll("#viewer [data-map]")) key.hidden = Number(key.dataset.map) !== this.map;
    }

    show(index) {
      if (index < 0 || index >= this.images.length || index === this.shown) return;
      if (index === this.other) this.other = this.shown;
      this.shown = index;
      return this.refresh();
    }

    blink() {
      return this.images.length > 1 ? this.show(this.other) : undefined;
    }

    blinkEverySecond(on) {
      clearInterval(this.timer);
      if (on) this.timer = setInterval(() => watched(this.blink()), 1000);
    }

    async swipe(on) {
      find("canvas-back").hidden = !on;
      if (on && !this.screens[BACK]) {
        await this.open(BACK);
        this.screens[BACK].setInterpolation(!find("smooth").checked);
      }
      this.swiping = on;
      for (const id of ["canvas-back", "dividers"]) find(id).hidden = !on;
      find("swipe-position").parentElement.hidden = !on;
      this.layOut();
      await this.refresh();
      this.jump(this.position);
      this.moveDivider();
    }

    // In each plane the other image shows right of a line at the same share of the plane.
    moveDivider() {
      const ratio = window.devicePixelRatio || 1;
      const share = Number(find("swipe-position").value) / 100;
      const planes = this.screens[FRONT].screenSlices
        .map((plane) => plane.leftTopWidthHeight.map((v) => v / ratio))
        // A plane that is mirrored has a width below 0.
        .map(([left, top, width, height]) => [Math.min(left, left + width), top, Math.abs(width), height]);
      const parts = planes.map(
        ([left, top, width, height]) => `M${left + share * width} ${top}H${left + width}V${top + height}H${left + share * width}Z`,
      );
      find("canvas-back").style.clipPath = `path("${parts.join("")}")`;
      find("dividers").replaceChildren(
        ...planes.map(([left, top, width, height]) => {
          const line = document.createElement("div");
          Object.assign(line.style, { left: `${left + share * width - 1}px`, top: `${top}px`, height: `${height}px` });
          return line;
        }),
      );
    }

    moved(place, location) {
      this.position = Array.from(location.mm).slice(0, 3);
      const other = this.screens[1 - place];
      if (other && this.swiping) {
        other.scene.crosshairPos = other.mm2frac(this.position);
        other.drawScene();
      }
      const texts = this.position.map((v) => (Math.abs(v) < 0.05 ? 0 : v).toFixed(1).replace("-", "\u2212"));
      find("position").textContent = `x ${texts[0]}, y ${texts[1]}, z ${texts[2]} mm`;
      const voxel = this.reference.index(this.position).map(Math.round);
      for (const slider of document.querySelectorAll("[data-axis]")) {
        const axis = Number(slider.dataset.axis);
        slider.value = String(voxel[axis]);
        find(`${slider.id}-value`).textContent = `${voxel[axis] + 1} of ${this.reference.dims[axis]}`;
      }
      this.sayValues();
    }

    // To the slice of a number along one axis.
    goTo(axis, number) {
      const voxel = this.reference.index(this.position).map(Math.round);
      voxel[axis] = number;
      this.jump(transformed(this.reference.affine, voxel));
    }

    turnAround(on) {
      this.radiological = on;
      for (const screen of this.screens) screen.opts.isRadiologicalConvention = on;
      find("side").textContent = on ? "right" : "left";
      return this.refresh();
    }

    sayValues() {
      if (!this.position) return;
      this.volumes.forEach((volume, index) => {
        document.querySelector(`[data-value="${index}"]`).textContent = this.value(volume);
      });
    }

    value(volume) {
      if (!volume.inverse) return UNREAD;
      const [x, y, z] = volume.index(this.position).map(Math.round);
      const [nx, ny, nz] = volume.dims;
      if (x < 0 || y < 0 || z < 0 || x >= nx || y >= ny || z >= nz) return "outside";
      const number = volume.intercept + volume.slope * volume.levels[x + nx * (y + ny * z)];
      if (volume.entry.names) return volume.entry.names[Math.round(number)] ?? "none";
      return number.toFixed(volume.entry.decimals).replace(/^-(?=0*\.?0*$)/, "").replace("-", "\u2212");
    }

    jump(mm) {
      const screen = this.screens[FRONT];
      screen.scene.crosshairPos = screen.mm2frac(mm);
      // To the middle of the voxel.
      screen.moveCrosshairInVox(0, 0, 0);
    }

    // By voxels to the left or right on the screen, up, and to the next slice.
    step(x, y, z) {
      this.screens[FRONT].moveCrosshairInVox(this.radiological ? -x : x, y, z);
    }

    layOut() {
      const spacing = this.reference.spacing;
      const size = this.reference.dims.map((n, i) => n * spacing[i]);
      slices.arrange(find("screen"), this.screens, size, find("viewer").clientWidth, window.innerHeight * SHARE_OF_HEIGHT);
      if (this.swiping) requestAnimationFrame(() => this.moveDivider());
    }
  }

  const STEPS = {
    ArrowLeft: [-1, 0, 0],
    ArrowRight: [1, 0, 0],
    ArrowUp: [0, 1, 0],
    ArrowDown: [0, -1, 0],
    PageUp: [0, 0, 1],
    PageDown: [0, 0, -1],
  };

  function listen(viewer) {
    const screen = find("screen");
    const on = (id, event, act) => find(id)?.addEventListener(event, act);
    for (const button of document.querySelectorAll("[data-image]")) {
      button.addEventListener("click", () => watched(viewer.show(Number(button.dataset.image))));
    }
    on("other", "change", (event) => {
      viewer.other = Number(event.target.value);
      if (viewer.other === viewer.shown) viewer.shown = (viewer.shown + 1) % viewer.images.length;
      watched(viewer.refresh());
    });
    on("blink", "click", () => watched(viewer.blink()));
    on("every-second", "change", (event) => viewer.blinkEverySecond(event.target.checked));
    on("swipe", "change", (event) => watched(viewer.swipe(event.target.checked)));
    on("swipe-position", "input", () => viewer.moveDivider());
    on("map", "change", (event) => {
      viewer.map = Number(event.target.value);
      watched(viewer.refresh());
    });
    on("outline", "change", (event) => {
      viewer.outlined = event.target.checked;
      watched(viewer.refresh());
    });
    on("radiological", "change", (event) => watched(viewer.turnAround(event.target.checked).then(() => viewer.swiping && viewer.moveDivider())));
    for (const slider of document.querySelectorAll("[data-axis]")) {
      const axis = Number(slider.dataset.axis);
      slider.addEventListener("input", () => viewer.goTo(axis, Number(slider.value)));
      slider.addEventListener("change", () => watched(viewer.readAll()));
    }
    on("smooth", "change", (event) => {
      for (const view of viewer.screens) view.setInterpolation(!event.target.checked);
    });
    for (const id of ["opacity", "window-low", "window-high"]) {
      on(id, "input", (event) => {
        find(`${id}-value`).textContent = `${event.target.value} %`;
        watched(viewer.refresh());
      });
    }
    // Before NiiVue's own listeners on the canvas: its keys, its double click (which resets the window) and its wheel are not ours.
    screen.addEventListener(
      "keydown",
      (event) => {
        if (event.ctrlKey || event.altKey || event.metaKey) return;
        const move = STEPS[event.key];
        if (move) viewer.step(...move);
        else if (event.key === " ") watched(viewer.blink());
        else if (/^[1-9]$/.test(event.key)) watched(viewer.show(Number(event.key) - 1));
        else return;
        event.preventDefault();
        event.stopPropagation();
      },
      true,
    );
    screen.addEventListener("focusin", () => watched(viewer.readAll()));
    screen.addEventListener("dblclick", (event) => event.stopPropagation(), true);
    screen.addEventListener("pointerdown", () => screen.focus({ preventScroll: true }), true);
    // Whoever scrolls the page past the slices scrolls the page; whoever has clicked into them moves through slices.
    screen.addEventListener("wheel", (event) => screen.contains(document.activeElement) || event.stopPropagation(), true);
    new ResizeObserver(() => viewer.layOut()).observe(find("viewer"));
    // Its height counts too, which the viewer's own size does not tell.
    window.addEventListener("resize", () => viewer.layOut());
  }

  async function main() {
    find("viewer").hidden = false;
    const [images, maps] = [settings.images, settings.maps].map((entries) => entries.map((entry) => new Volume(entry)));
    const viewer = new Viewer(images, maps, settings.reference);
    await viewer.start();
    listen(viewer);
    find("slices").hidden = true;
    // Once it is on the screen.
    await new Promise(requestAnimationFrame);
    performance.mark("viewer-ready");
    document.documentElement.dataset.viewer = "ready";
  }

  main().catch(fail);
})();
