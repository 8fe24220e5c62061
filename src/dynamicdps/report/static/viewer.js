"use strict";
// The viewer of a report: images under one window, maps over them, one crosshair in three planes. NiiVue draws; what is said is HTML.
(() => {
  const SHARE_OF_HEIGHT = 0.72; // of the window's, at most
  const FLAT_ENOUGH = 0.75;
  const PADDING = 8; // CSS pixels between the planes
  const CROSSHAIR_WIDTH = 1.8; // CSS pixels
  const FRONT = 0;
  const BACK = 1;
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

  async function read(entry) {
    const element = find(entry.id);
    const buffer = await unpack(bytesOf(element.textContent));
    element.remove();
    return { entry, buffer, image: await niivue.NVImage.new(buffer, `${entry.id}.nii`) };
  }

  // Nearest voxels of a volume on the reference's grid, so that all images have one geometry; its values are read from its own voxels.
  async function onGrid(volume, reference) {
    const { image, entry } = volume;
    const [nx, ny, nz] = reference.image.hdr.dims.slice(1, 4);
    const [mx, my, mz] = image.hdr.dims.slice(1, 4);
    const to = (index) => image.mm2vox(reference.image.vox2mm(index, reference.image.matRAS), true);
    const origin = to([0, 0, 0]);
    const axes = [to([1, 0, 0]), to([0, 1, 0]), to([0, 0, 1])].map((v) => [0, 1, 2].map((i) => v[i] - origin[i]));
    const zero = Math.round((0 - image.hdr.scl_inter) / image.hdr.scl_slope);
    const out = new image.img.constructor(nx * ny * nz).fill(zero);
    let at = 0;
    for (let k = 0; k < nz; k++) {
      for (let j = 0; j < ny; j++) {
        for (let i = 0; i < nx; i++, at++) {
          const x = Math.round(origin[0] + i * axes[0][0] + j * axes[1][0] + k * axes[2][0]);
          const y = Math.round(origin[1] + i * axes[0][1] + j * axes[1][1] + k * axes[2][1]);
          const z = Math.round(origin[2] + i * axes[0][2] + j * axes[1][2] + k * axes[2][2]);
          if (x >= 0 && y >= 0 && z >= 0 && x < mx && y < my && z < mz) out[at] = image.img[x + mx * (y + my * z)];
        }
      }
    }
    const header = reference.header.slice(0);
    const view = new DataView(header);
    view.setInt16(70, image.hdr.datatypeCode, true);
    view.setInt16(72, image.hdr.numBitsPerVoxel, true);
    view.setFloat32(112, image.hdr.scl_slope, true);
    view.setFloat32(116, image.hdr.scl_inter, true);
    const file = new Uint8Array(header.byteLength + out.byteLength);
    file.set(new Uint8Array(header), 0);
    file.set(new Uint8Array(out.buffer), header.byteLength);
    return niivue.NVImage.new(file.buffer, `${entry.id}-shown.nii`);
  }

  function sameGrid(a, b) {
    return [1, 2, 3].every((i) => a.hdr.dims[i] === b.hdr.dims[i]) && a.matRAS.every((v, i) => Math.abs(v - b.matRAS[i]) < 1e-3);
  }

  class Viewer {
    constructor(images, maps, reference) {
      this.images = images;
      this.maps = maps;
      this.reference = reference;
      this.shown = settings.first;
      this.other = images.length > 1 ? (settings.first + images.length - 1) % images.length : settings.first;
      this.map = -1;
      this.swiping = false;
      this.timer = 0;
      this.screens = [];
    }

    async open(place) {
      const canvas = find(place === FRONT ? "canvas-front" : "canvas-back");
      const screen = new niivue.Niivue({
        logLevel: "silent",
        backColor: [0, 0, 0, 1],
        crosshairColor: [1, 0.85, 0.2, 0.9],
        crosshairWidthUnit: "mm",
        fontColor: [1, 1, 1, 1],
        isNearestInterpolation: true,
        dragMode: niivue.DRAG_MODE.none,
        dragAndDropEnabled: false,
        multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
        multiplanarPadPixels: 4,
        viewModeHotKey: "",
        clipPlaneHotKey: "",
        cycleClipPlaneHotKey: "",
        loadingText: "",
        isColorbar: false,
      });
      this.screens[place] = screen;
      await screen.attachToCanvas(canvas, false);
      canvas.tabIndex = -1;
      canvas.removeAttribute("title");
      screen.setSliceType(niivue.SLICE_TYPE.MULTIPLANAR);
      for (const [index, { entry }] of this.maps.entries()) {
        screen.addColormap(`positive-${index}`, entry.positive);
        if (entry.negative) screen.addColormap(`negative-${index}`, entry.negative);
      }
      screen.onLocationChange = (location) => this.moved(place, location);
      return screen;
    }

    async start() {
      await this.open(FRONT);
      this.layOut();
      this.refresh();
      this.jump(settings.crosshair);
    }

    // Volumes of one screen, in the order in which NiiVue draws them.
    layers(index) {
      const image = this.images[index].drawn;
      image.colormap = "gray";
      [image.cal_min, image.cal_max] = this.window();
      if (this.map < 0) return [image];
      const { image: map, entry } = this.maps[this.map];
      map.colormap = `positive-${this.map}`;
      map.cal_min = entry.low;
      map.cal_max = entry.high;
      map.colormapNegative = entry.negative ? `negative-${this.map}` : "";
      map.cal_minNeg = entry.negative ? -entry.high : NaN;
      map.cal_maxNeg = entry.negative ? -entry.low : NaN;
      map.colormapType = TRANSLUCENT_BELOW_MINIMUM;
      return [image, map];
    }

    window() {
      const [low, high] = settings.window;
      const share = (id) => Number(find(id).value) / 100;
      const black = share("window-low");
      return [low + black * (high - low), low + Math.max(share("window-high"), black + 0.01) * (high - low)];
    }

    refresh() {
      this.screens.forEach((screen, place) => {
        if (place === BACK && !this.swiping) return;
        screen.volumes = this.layers(place === FRONT ? this.shown : this.other);
        screen.overlays = screen.volumes.slice(1);
        screen.back = screen.volumes[0];
        screen.overlayAlphaShader = Number(find("opacity")?.value ?? 100) / 100;
        screen.updateGLVolume();
      });
      this.say();
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
      this.refresh();
    }

    blink() {
      if (this.images.length > 1) this.show(this.other);
    }

    blinkEverySecond(on) {
      clearInterval(this.timer);
      if (on) this.timer = setInterval(() => this.blink(), 1000);
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
      this.refresh();
      this.jump(this.position);
      this.moveDivider();
    }

    // In each plane the other image shows right of a line at the same share of the plane.
    moveDivider() {
      const ratio = window.devicePixelRatio || 1;
      const share = Number(find("swipe-position").value) / 100;
      const planes = this.screens[FRONT].screenSlices.map((plane) => plane.leftTopWidthHeight.map((v) => v / ratio));
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
      [...this.images, ...this.maps].forEach((volume, index) => {
        document.querySelector(`[data-value="${index}"]`).textContent = this.value(volume);
      });
    }

    value({ image, entry }) {
      const index = image.mm2vox(this.position);
      if (index.some((v, i) => v < 0 || v >= image.hdr.dims[i + 1])) return "outside";
      const number = image.getValue(index[0], index[1], index[2]);
      return number.toFixed(entry.decimals).replace(/^-(?=0*\.?0*$)/, "").replace("-", "\u2212");
    }

    jump(mm) {
      const screen = this.screens[FRONT];
      screen.scene.crosshairPos = screen.mm2frac(mm);
      // To the middle of the voxel.
      screen.moveCrosshairInVox(0, 0, 0);
    }

    step(x, y, z) {
      this.screens[FRONT].moveCrosshairInVox(x, y, z);
    }

    // Side by side, two by two, or below each other: the flattest arrangement in which the planes are not much smaller than they could be.
    layOut() {
      const [x, y, z] = this.reference.image.dimsRAS.slice(1, 4).map((n, i) => n * this.reference.image.pixDimsRAS[i + 1]);
      const screen = find("screen");
      const highest = window.innerHeight * SHARE_OF_HEIGHT;
      const arrangements = [
        [niivue.MULTIPLANAR_TYPE.ROW, x + x + y, Math.max(y, z)],
        [niivue.MULTIPLANAR_TYPE.GRID, x + y, y + z],
        [niivue.MULTIPLANAR_TYPE.COLUMN, Math.max(x, y), y + z + z],
      ].map(([type, width, height]) => ({ type, height, scale: Math.min(screen.clientWidth / width, highest / height) }));
      const largest = Math.max(...arrangements.map((a) => a.scale));
      const best = arrangements.find((a) => a.scale >= FLAT_ENOUGH * largest);
      screen.style.height = `${Math.max(160, Math.round(best.scale * best.height) + PADDING)}px`;
      for (const view of this.screens) {
        view.opts.crosshairWidth = CROSSHAIR_WIDTH / best.scale;
        view.setMultiplanarLayout(best.type);
      }
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
      button.addEventListener("click", () => viewer.show(Number(button.dataset.image)));
    }
    on("other", "change", (event) => {
      viewer.other = Number(event.target.value);
      if (viewer.other === viewer.shown) viewer.shown = (viewer.shown + 1) % viewer.images.length;
      viewer.refresh();
    });
    on("blink", "click", () => viewer.blink());
    on("every-second", "change", (event) => viewer.blinkEverySecond(event.target.checked));
    on("swipe", "change", (event) => viewer.swipe(event.target.checked));
    on("swipe-position", "input", () => viewer.moveDivider());
    on("map", "change", (event) => {
      viewer.map = Number(event.target.value);
      viewer.refresh();
    });
    on("smooth", "change", (event) => {
      for (const view of viewer.screens) view.setInterpolation(!event.target.checked);
    });
    for (const id of ["opacity", "window-low", "window-high"]) {
      on(id, "input", (event) => {
        find(`${id}-value`).textContent = `${event.target.value} %`;
        viewer.refresh();
      });
    }
    // Before NiiVue's own listeners on the canvas: its keys, its double click (which resets the window) and its wheel are not ours.
    screen.addEventListener(
      "keydown",
      (event) => {
        if (event.ctrlKey || event.altKey || event.metaKey) return;
        const move = STEPS[event.key];
        if (move) viewer.step(...move);
        else if (event.key === " ") viewer.blink();
        else if (/^[1-9]$/.test(event.key)) viewer.show(Number(event.key) - 1);
        else return;
        event.preventDefault();
        event.stopPropagation();
      },
      true,
    );
    screen.addEventListener("dblclick", (event) => event.stopPropagation(), true);
    screen.addEventListener("pointerdown", () => screen.focus({ preventScroll: true }), true);
    // Whoever scrolls the page past the slices scrolls the page; whoever has clicked into them moves through slices.
    screen.addEventListener("wheel", (event) => screen.contains(document.activeElement) || event.stopPropagation(), true);
    new ResizeObserver(() => viewer.layOut()).observe(find("viewer"));
  }

  async function main() {
    find("viewer").hidden = false;
    const images = await Promise.all(settings.images.map(read));
    const maps = await Promise.all(settings.maps.map(read));
    const reference = images[settings.reference];
    reference.header = reference.buffer.slice(0, reference.image.hdr.vox_offset);
    for (const volume of images) {
      volume.drawn = sameGrid(volume.image, reference.image) ? volume.image : await onGrid(volume, reference);
      delete volume.buffer;
    }
    const viewer = new Viewer(images, maps, reference);
    listen(viewer);
    await viewer.start();
    find("slices").hidden = true;
    performance.mark("viewer-ready");
    document.documentElement.dataset.viewer = "ready";
  }

  main().catch((error) => fallBack(`The viewer could not start (${error.message}).`));
})();
