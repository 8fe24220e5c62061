"use strict";
// The page: what is dropped goes to the program on this machine, and what that says of its jobs is shown. NiiVue draws the scan.
(() => {
  const POLL_MS = 1000;
  const PARALLEL = 4; // files on their way at once
  const STATES = {
    recognised: "ready to start",
    waiting: "waiting",
    running: "running",
    done: "done",
    failed: "failed",
    cancelled: "cancelled",
    interrupted: "interrupted",
  };
  const STAGES = {
    load: "Load the models",
    open: "Find the brain",
    prepare: "Prepare",
    initial: "Fit the scanner, make the initial image",
    solve: "Solve",
    volumes: "Measure tissue volumes",
    write: "Write files and report",
  };
  const QUALITIES = {
    fast: ["Fast", "One run without noise; no map of the uncertainty."],
    default: ["Default", "A pair of samples, whose spread is the uncertainty."],
    best: ["Best", "Four pairs of samples and more noise levels; several times as long."],
  };
  const ACQUISITION = {
    field_strength_t: ["Field strength", "T"],
    sequence: ["Sequence", ""],
    echo_time_ms: ["Echo time", "ms"],
    repetition_time_ms: ["Repetition time", "ms"],
    inversion_time_ms: ["Inversion time", "ms"],
    flip_angle_deg: ["Flip angle", "\u00b0"],
    slice_thickness_mm: ["Slice thickness", "mm"],
    slice_spacing_mm: ["Distance of slices", "mm"],
  };

  const find = (id) => document.getElementById(id);
  const qualityOf = new Map(); // what was chosen for jobs that are not started
  let state = { jobs: [], qualities: [], stages: [] };
  let chosen = location.hash.slice(1);
  let shown = ""; // what the detail was built for
  let anew = ""; // the job whose scan is shown although it is done, to be enhanced again

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // A name at the beginning stays as it is.
  function sentence(text) {
    if (/^[^\s]*[._\d/]/.test(text)) return text + (/[.!?]$/.test(text) ? "" : ".");
    return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
  }

  function duration(seconds) {
    if (seconds < 1) return "a second";
    if (seconds < 90) return `${Math.round(seconds)} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    return `${(seconds / 3600).toFixed(1)} h`;
  }

  async function ask(path, method = "GET", body = undefined) {
    const answer = await fetch(path, { method, body, redirect: "error" });
    if (answer.ok) return answer;
    let problem = `the program answered ${answer.status}`;
    try {
      problem = (await answer.json()).problem;
    } catch {
      // No sentence of its own: the number will do.
    }
    throw Object.assign(new Error(problem), { told: true });
  }

  async function tell(work) {
    try {
      await work;
      find("problem").hidden = true;
    } catch (error) {
      if (error.told) say(find("problem"), error.message);
    }
    await poll();
  }

  function say(place, problem) {
    place.textContent = problem ? sentence(problem) : "";
    place.hidden = !problem;
  }

  // Files of what is dropped, those of folders with their paths.

  async function filesOf(entry, path = "") {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      return [{ file, name: path + file.name }];
    }
    const reader = entry.createReader();
    const found = [];
    for (;;) {
      // It gives some hundred at a time.
      const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!entries.length) return found;
      for (const each of entries) found.push(...(await filesOf(each, `${path}${entry.name}/`)));
    }
  }

  async function receive(gathered) {
    const status = find("receiving");
    say(find("drop-problem"), "");
    let drop = null;
    try {
      status.textContent = "Looking for files \u2026";
      const files = (await gathered).filter(({ name }) => !name.split("/").some((part) => part.startsWith(".")));
      if (!files.length) throw Object.assign(new Error("there are no files in what was dropped; expected scans; drop others"), { told: true });
      drop = (await (await ask("api/drops", "POST")).json()).drop;
      let next = 0;
      let done = 0;
      const send = async () => {
        while (next < files.length) {
          const { file, name } = files[next++];
          await ask(`api/drops/${drop}/files?name=${encodeURIComponent(name)}`, "PUT", file);
          status.textContent = `Received ${++done} of ${files.length} files \u2026`;
        }
      };
      await Promise.all(Array.from({ length: PARALLEL }, send));
      status.textContent = `Reading ${files.length === 1 ? files[0].name : `${files.length} files`} \u2026`;
      const whole = drop;
      drop = null; // what it is recognised as or not, the program forgets it
      const taken = await (await ask(`api/drops/${whole}/recognise`, "POST")).json();
      await poll();
      const left = taken.left_out;
      status.textContent = left.length ? `Left out, no scans: ${left.slice(0, 5).join(", ")}${left.length > 5 ? " \u2026" : ""}` : "";
      const usable = state.jobs.filter((job) => taken.jobs.includes(job.id));
      choose((usable.find((job) => job.usable) ?? usable[0])?.id ?? "");
    } catch (error) {
      status.textContent = "";
      say(find("drop-problem"), error.told ? error.message : "what was dropped could not be read");
      if (drop) await ask(`api/drops/${drop}`, "DELETE").catch(() => {});
    }
  }

  function listenForDrops() {
    const body = document.body;
    body.addEventListener("dragover", (event) => {
      event.preventDefault();
      body.classList.add("over");
    });
    body.addEventListener("dragleave", (event) => event.relatedTarget ?? body.classList.remove("over"));
    body.addEventListener("drop", (event) => {
      event.preventDefault();
      body.classList.remove("over");
      const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
      receive(Promise.all(entries.map((entry) => filesOf(entry))).then((found) => found.flat()));
    });
    for (const [button, input] of [
      ["choose-files", "files"],
      ["choose-folder", "folder"],
    ]) {
      find(button).addEventListener("click", () => find(input).click());
      find(input).addEventListener("change", (event) => {
        const files = [...event.target.files].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
        event.target.value = "";
        if (files.length) receive(Promise.resolve(files));
      });
    }
  }

  // What is shown of the jobs.

  function nameOf(job) {
    return job.scans.map((scan) => scan.name).join(" + ");
  }

  function stateOf(job) {
    if (!job.usable) return "cannot be used";
    if (job.state === "waiting") {
      const ahead = state.jobs.filter((other) => other.state === "running" || (other.state === "waiting" && other.queued < job.queued));
      return ahead.length ? `waiting, ${ahead.length} before it` : "waiting";
    }
    if (job.state === "running" && job.left !== null) return `running, about ${duration(job.left)} left`;
    if (job.state === "done") return `done in ${duration(job.seconds)}`;
    return STATES[job.state];
  }

  // Share of the work that is done: by time where it is known, by stages where it is not.
  function shareOf(job) {
    if (job.left !== null) return job.elapsed / Math.max(job.elapsed + job.left, 1e-3);
    return (state.stages.indexOf(job.stage) + job.done / job.planned) / state.stages.length;
  }

  function drawList() {
    const list = find("jobs");
    const known = new Map([...list.children].map((item) => [item.dataset.id, item]));
    state.jobs.forEach((job, index) => {
      let item = known.get(job.id);
      if (!item) {
        const button = element("button", { type: "button", className: "job" });
        button.append(element("span", { className: "name" }), element("span", { className: "state" }), element("progress", { max: 1 }));
        button.addEventListener("click", () => choose(job.id));
        item = element("li", {}, button);
        item.dataset.id = job.id;
      }
      known.delete(job.id);
      if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
      const button = item.firstChild;
      const [name, words, bar] = button.children;
      button.setAttribute("aria-current", String(job.id === chosen));
      name.textContent = nameOf(job);
      words.textContent = stateOf(job);
      words.className = `state ${job.usable ? job.state : "bad"}`;
      bar.hidden = job.state !== "running";
      bar.value = shareOf(job);
      bar.setAttribute("aria-label", `Progress of ${nameOf(job)}`);
    });
    for (const item of known.values()) item.remove();
    const ready = state.jobs.filter((job) => job.state === "recognised" && job.usable);
    find("start-all").hidden = ready.length < 2;
    find("start-all").textContent = `Enhance all ${ready.length}`;
    find("columns").hidden = !state.jobs.length;
    document.body.classList.toggle("empty", !state.jobs.length);
  }

  function rowsOf(scan) {
    const skull = { true: "Head with the skull", false: "Skull-stripped" }[scan.skull] ?? "Cannot be told";
    const rows = [
      ["File", scan.kind],
      ["Voxels", scan.shape.join(" \u00d7 ")],
      ["Voxel size", `${scan.spacing_mm.map((mm) => Number(mm.toPrecision(3))).join(" \u00d7 ")} mm`],
      ["Orientation", scan.orientation],
      ["Contrast", scan.contrast ? `${scan.contrast}, by the name` : "The name does not say it"],
      ["Brain", skull],
      ["Covers", scan.whole_head ? "A whole head" : "A slab"],
    ];
    for (const [name, [label, unit]] of Object.entries(ACQUISITION)) {
      const value = scan.acquisition[name];
      if (value !== undefined) rows.push([label, `${typeof value === "number" ? Number(value.toPrecision(4)) : value}${unit === "\u00b0" ? unit : ` ${unit}`}`]);
    }
    return rows;
  }

  function tableOf(scan, named) {
    const rows = rowsOf(scan).map(([label, value]) => {
      const cells = [element("th", { scope: "row", textContent: label }), element("td", { textContent: value })];
      return element("tr", {}, ...cells);
    });
    const table = element("table", {}, element("tbody", {}, ...rows));
    if (named) table.prepend(element("caption", { textContent: scan.name }));
    return table;
  }

  function button(text, act, className = "") {
    const made = element("button", { type: "button", textContent: text, className });
    made.addEventListener("click", act);
    return made;
  }

  function link(text, href, properties = {}) {
    return element("a", { textContent: text, href, className: "button", ...properties });
  }

  function actionsOf(job) {
    const place = `api/jobs/${job.id}`;
    const remove = (question) =>
      button("Remove", () => {
        if (!question || confirm(question)) tell(ask(place, "DELETE"));
      });
    if (job.state === "waiting" || job.state === "running") return [button("Cancel", () => tell(ask(`${place}/cancel`, "POST")))];
    if (job.state !== "done") return [remove("")];
    return [
      link("Save as NIfTI", `${place}/files/${encodeURIComponent(job.files[0])}`, { download: "", className: "button main", id: "save" }),
      ...(job.dicom ? [link("Save as DICOM", `${place}/dicom.zip`, { download: "", title: "Names the patient, as the scan does", id: "save-dicom" })] : []),
      link("Save all files", `${place}/all.zip`, { download: "" }),
      link("Report in a new tab", `${place}/report`, { target: "_blank", rel: "noopener" }),
      button(anew === job.id ? "Show the report" : "Enhance again", () => {
        anew = anew === job.id ? "" : job.id;
        draw();
      }),
      remove(`Delete ${nameOf(job)} with its results?`),
    ];
  }

  function drawChoice(job) {
    const fieldset = find("qualities");
    const selected = qualityOf.get(job.id) ?? job.quality;
    fieldset.querySelectorAll("label").forEach((label) => label.remove());
    for (const name of state.qualities) {
      const radio = element("input", { type: "radio", name: "quality", value: name, checked: name === selected });
      radio.addEventListener("change", () => qualityOf.set(job.id, name));
      const seconds = job.expected[name];
      const time = seconds ? ` About ${duration(seconds)}.` : "";
      fieldset.append(element("label", {}, radio, element("span", { textContent: QUALITIES[name][0] }), element("small", { textContent: QUALITIES[name][1] + time })));
    }
    const group = groupOf(job);
    find("together-label").hidden = group.length < 2;
    find("together").checked = false;
    find("together-words").textContent = `The ${group.length} scans that were dropped together show one head: enhance them as one`;
    find("start").textContent = job.state === "recognised" ? "Enhance" : job.state === "done" ? "Replace the result" : "Enhance again";
  }

  // Jobs that can be put together with one.
  function groupOf(job) {
    return state.jobs.filter((other) => other.drop === job.drop && other.state === "recognised" && other.usable);
  }

  function draw() {
    drawList();
    const job = state.jobs.find((each) => each.id === chosen);
    find("detail").hidden = !job;
    if (!job) return;
    find("detail-title").textContent = nameOf(job);
    const words = job.usable ? stateOf(job) : "";
    if (find("detail-state").textContent !== words) find("detail-state").textContent = words;
    find("detail-state").className = `state ${job.state}`;
    find("work").hidden = job.state !== "running";
    if (job.state === "running") drawProgress(job);
    const known = JSON.stringify([job.id, job.state, job.problem, job.scans.length, job.dicom, job.expected, groupOf(job).length, anew]);
    if (known === shown) return;
    shown = known;
    say(find("problem"), job.problem || job.scans.map((scan) => scan.problem).filter(Boolean).join(" "));
    find("actions").replaceChildren(...actionsOf(job));
    const report = job.state === "done" && anew !== job.id;
    find("choice").hidden = !job.usable || report || ["waiting", "running"].includes(job.state);
    if (!find("choice").hidden) drawChoice(job);
    const usable = job.scans.filter((scan) => scan.shape);
    const warnings = usable.flatMap((scan) => scan.warnings).map((text) => element("li", { textContent: sentence(text) }));
    find("recognised").replaceChildren(
      ...(warnings.length ? [element("ul", { className: "warnings" }, ...warnings)] : []),
      ...usable.map((scan) => tableOf(scan, job.scans.length > 1)),
    );
    find("facts").hidden = report || !usable.length;
    find("report").hidden = !report;
    find("report").replaceChildren(...(report ? reportOf(job) : []));
    if (!find("facts").hidden) look(job);
  }

  function drawProgress(job) {
    find("progress").value = shareOf(job);
    const ofStage = job.left_of_stage ? `, about ${duration(job.left_of_stage)} of this stage left` : "";
    const left = job.left === null ? ofStage : `, about ${duration(job.left)} left`;
    const parts = job.planned > 1 ? `, ${job.done} of ${job.planned}` : "";
    find("time").textContent = `${duration(job.elapsed)}${left}`;
    const at = state.stages.indexOf(job.stage);
    const items = state.stages.map((name, index) => {
      const item = element("li", { textContent: STAGES[name] + (index === at ? parts : ""), className: index < at ? "over" : "" });
      if (index === at) item.setAttribute("aria-current", "step");
      return item;
    });
    find("stages").replaceChildren(...items);
  }

  function reportOf(job) {
    const place = `api/jobs/${job.id}`;
    const items = job.files.map((name) => element("li", {}, element("a", { textContent: name, href: `${place}/files/${encodeURIComponent(name)}`, download: "" })));
    const frame = element("iframe", { title: `Report of ${nameOf(job)}`, src: `${place}/report` });
    frame.setAttribute("sandbox", "allow-scripts");
    return [element("details", {}, element("summary", { textContent: "Single files" }), element("ul", { className: "files" }, ...items)), frame];
  }

  // The scan in three planes.

  let opening = null;
  let screen = null;
  let drawn = "";

  async function look(job) {
    const id = `${job.id}/${job.scans.length}`;
    if (drawn === id) return;
    drawn = id;
    const note = find("look-note");
    note.textContent = "";
    try {
      opening ??= slices.open(find("canvas"));
      screen = await opening;
      const number = job.scans.findIndex((scan) => scan.shape);
      const packed = await (await ask(`api/jobs/${job.id}/previews/${number}`)).blob();
      const file = await new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
      const image = await niivue.NVImage.new(file, "scan.nii");
      if (drawn !== id) return;
      image.colormap = "gray";
      screen.volumes = [image];
      screen.overlays = [];
      screen.back = image;
      find("screen").hidden = false;
      layOut(image);
      screen.updateGLVolume();
      screen.scene.crosshairPos = [0.5, 0.5, 0.5];
      screen.drawScene();
      note.textContent = "Click into the slices to move; the subject's left is on the left. Look whether front, top and sides are where they belong.";
      document.documentElement.dataset.look = id;
    } catch (error) {
      find("screen").hidden = true;
      note.textContent = `The scan cannot be shown here (${error.message}); it can be enhanced all the same.`;
    }
  }

  function layOut(image) {
    const size = [1, 2, 3].map((axis) => image.dimsRAS[axis] * image.pixDimsRAS[axis]);
    slices.arrange(find("screen"), [screen], size, find("screen").parentElement.clientWidth, window.innerHeight / 2);
  }

  function choose(id) {
    chosen = id;
    history.replaceState(null, "", `#${id}`);
    draw();
  }

  async function poll() {
    try {
      state = await (await ask("api/state")).json();
      find("gone").hidden = true;
    } catch {
      find("gone").hidden = false;
      return;
    }
    if (!state.jobs.some((job) => job.id === chosen)) {
      chosen = (state.jobs.find((job) => job.state === "running") ?? state.jobs[0])?.id ?? "";
      history.replaceState(null, "", `#${chosen}`);
    }
    find("footer").textContent = `dynamicdps ${state.version}. Scans and results are kept in ${state.folder} until they are removed here. Nothing is sent anywhere.`;
    draw();
    document.documentElement.dataset.ready = "yes";
  }

  function start(job, quality) {
    return ask(`api/jobs/${job.id}/start`, "POST", JSON.stringify({ quality }));
  }

  async function startChosen() {
    const job = state.jobs.find((each) => each.id === chosen);
    const quality = qualityOf.get(job.id) ?? job.quality;
    anew = "";
    if (!find("together-label").hidden && find("together").checked) {
      const jobs = groupOf(job).map((each) => each.id);
      const made = await (await ask("api/together", "POST", JSON.stringify({ jobs }))).json();
      chosen = made.job;
      await start({ id: made.job }, quality);
    } else {
      await start(job, quality);
    }
    find("detail").focus({ preventScroll: true });
  }

  async function startAll() {
    const ready = state.jobs.filter((job) => job.state === "recognised" && job.usable).sort((a, b) => (a.id < b.id ? -1 : 1));
    for (const job of ready) await start(job, qualityOf.get(job.id) ?? job.quality);
  }

  find("choice").addEventListener("submit", (event) => {
    event.preventDefault();
    tell(startChosen());
  });
  find("start-all").addEventListener("click", () => tell(startAll()));
  listenForDrops();
  const again = () => poll().finally(() => setTimeout(again, POLL_MS));
  again();
})();
