"use strict";
// Slices in three planes by NiiVue, alike on every page that shows them.
const slices = (() => {
  const FLAT_ENOUGH = 0.75;
  const FILLED_ENOUGH = 0.6;
  const PADDING = 8; // CSS pixels between the planes
  const CROSSHAIR_WIDTH = 1.8; // CSS pixels

  async function open(canvas) {
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser offers no WebGL 2");
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
    await screen.attachToCanvas(canvas, false);
    canvas.removeAttribute("title");
    screen.setSliceType(niivue.SLICE_TYPE.MULTIPLANAR);
    return screen;
  }

  // Of a slab: the plane of its slices, and the two others, which are low, above each other beside it. Shares of the box.
  function besideEachOther([x, y, z], width, height) {
    const place = (sliceType, left, top, across, up) => ({ sliceType, position: [left / width, top / height, across / width, up / height] });
    const gap = 0.01 * width;
    return [
      place(niivue.SLICE_TYPE.AXIAL, 0, 0, x, y),
      place(niivue.SLICE_TYPE.CORONAL, x + gap, 0, x, z),
      place(niivue.SLICE_TYPE.SAGITTAL, x + gap, z + gap, y, z),
    ];
  }

  // The flattest arrangement in which the planes are not much smaller than they could be and leave little of the box black, as those of
  // a slab do side by side. The box is no wider than they are.
  function arrange(box, screens, [x, y, z], widest, highest) {
    const planes = x * y + x * z + y * z;
    const { ROW, GRID, COLUMN } = niivue.MULTIPLANAR_TYPE;
    const beside = 1.01 * (x + Math.max(x, y));
    const arrangements = [
      { type: ROW, width: x + x + y, height: Math.max(y, z) },
      ...(2.1 * z < y ? [{ type: ROW, width: beside, height: y, layout: besideEachOther([x, y, z], beside, y) }] : []),
      { type: GRID, width: x + y, height: y + z },
      { type: COLUMN, width: Math.max(x, y), height: y + z + z },
    ].map((a) => ({ ...a, filled: planes / (a.width * a.height), scale: Math.min(widest / a.width, highest / a.height) }));
    const largest = Math.max(...arrangements.map((a) => a.scale));
    const large = arrangements.filter((a) => a.scale >= FLAT_ENOUGH * largest);
    const fullest = Math.max(...large.map((a) => a.filled));
    const best = large.find((a) => a.filled >= Math.min(FILLED_ENOUGH, fullest));
    box.style.height = `${Math.max(160, Math.round(best.scale * best.height) + PADDING)}px`;
    box.style.width = `${Math.min(widest, Math.round(best.scale * best.width) + PADDING)}px`;
    for (const screen of screens) {
      screen.opts.crosshairWidth = CROSSHAIR_WIDTH / best.scale;
      screen.customLayout = best.layout ?? null;
      screen.setMultiplanarLayout(best.type);
      screen.resizeListener();
    }
  }

  return { open, arrange };
})();
