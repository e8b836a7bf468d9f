"use strict";
/* The one script of the pages: it asks the API, writes text and draws lines.
   Every text goes through textContent, so that none of it can become markup. */

const MINUS = "\u2212", NONE = "\u2013", DASHES = ["", "6 2", "2 2", "6 2 2 2"], MOST_OWN_COLOURS = 8;
const CURVES_EVERY_MS = 2000, UNSEEN_EVERY_MS = 20000, LIST_EVERY_MS = 3000;
const byId = (id) => document.getElementById(id);

/* ---- words ---- */

function number(value) {
  if (value === null || value === undefined) return NONE;
  const size = Math.abs(value);
  const text = value && (size < 1e-3 || size >= 1e5) ? value.toPrecision(2)
    : value.toFixed(size < 1 ? 3 : size < 100 ? 2 : 1);
  return text.replaceAll("-", MINUS);
}

function dataSize(bytes) {
  for (const unit of ["B", "kB", "MB"]) {
    if (bytes < 1000) return unit === "B" ? `${bytes} B` : `${bytes.toFixed(1)} ${unit}`;
    bytes /= 1000;
  }
  return `${bytes.toFixed(1)} GB`;
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(Math.round(seconds) / 60), two = (part) => String(part).padStart(2, "0");
  if (minutes < 60) return `${minutes} min ${two(Math.round(seconds) % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
}

function at(seconds) {
  if (!seconds) return NONE;
  const when = new Date(seconds * 1000), two = (part) => String(part).padStart(2, "0");
  return `${when.getFullYear()}-${two(when.getMonth() + 1)}-${two(when.getDate())} ` +
    `${two(when.getHours())}:${two(when.getMinutes())}:${two(when.getSeconds())}`;
}

/* ---- elements ---- */

function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function emptyRow(cells) {
  return make("tr", {}, ...cells.map((cell, column) => column ? make("td") : make("th", { scope: "row" })));
}

/* Fill a table's body: rows keep their elements, so that focus and selection stay where they are. */
function fill(table, rows) {
  const body = table.tBodies[0];
  while (body.rows.length > rows.length) body.lastElementChild.remove();
  rows.forEach((cells, place) => {
    let row = body.rows[place];
    if (!row || row.cells.length !== cells.length) {
      const made = emptyRow(cells);
      if (row) row.replaceWith(made); else body.append(made);
      row = made;
    }
    cells.forEach((cell, column) => show(row.cells[column], cell));
  });
}

/* Fill a table whose newest rows come on top: what was there moves down, and is not written again. */
function fillFromTop(table, rows) {
  const body = table.tBodies[0], top = body.rows[0];
  const before = top && [...top.cells].map((cell) => cell.textContent).join("\n");
  const added = rows.findIndex((cells) => cells.map((cell) => cell.text ?? String(cell)).join("\n") === before);
  for (let place = 0; place < added; place += 1) body.prepend(emptyRow(rows[place]));
  fill(table, rows);
}

/* A cell is a text, or {text, href, kind, small, shade}. */
function show(place, cell) {
  const told = typeof cell === "object" && cell !== null ? cell : { text: String(cell) };
  const kind = told.kind || "";
  if (place.className !== kind) place.className = kind;
  if (told.shade !== undefined) place.style.setProperty("--shade", told.shade);
  if (!told.href && !told.small) { delete place.dataset.mark; say(place, told.text); return; }
  const mark = JSON.stringify(told);
  if (place.dataset.mark === mark) return;
  place.dataset.mark = mark;
  place.replaceChildren(told.href ? make("a", { href: told.href }, told.text) : told.text,
    ...(told.small ? [make("small", {}, told.small)] : []));
}

function head(table, names) {
  const row = table.tHead.rows[0];
  if (row.cells.length === names.length && names.every((name, i) => row.cells[i].textContent === name)) return;
  row.replaceChildren(...names.map((name) =>
    make("th", { scope: "col", class: name === "State" ? "text" : "" }, name)));
}

function cards(list, figures) {
  const same = list.childElementCount === figures.length;
  if (!same) {
    list.replaceChildren(...figures.map(() =>
      make("div", { class: "card" }, make("dt"), make("dd"), make("dd"))));
  }
  figures.forEach((figure, place) => {
    [figure.name, figure.value, figure.about].forEach((text, part) =>
      say(list.children[place].children[part], text));
  });
}

/* ---- charts ---- */

const SVG = "http://www.w3.org/2000/svg";
const MOST_WIDE_PX = 500;
const BOX = { width: 480, height: 250, left: 56, right: 12, top: 10, bottom: 34 };

function drawn(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function ticks(low, high, most) {
  const span = high - low || Math.abs(high) || 1, rough = span / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) found.push(tick);
  return found;
}

function tickWords(tick) { return String(Number(tick.toPrecision(6))).replace("-", MINUS); }

/* Draw lines {name: [[x, y], ...]}; many are faint, the mean and the chosen one are not. */
function chart(host, lines, { label, mean = null, chosen = "", along = "rounds of training", none = "No values." }) {
  const names = Object.keys(lines).filter((name) => lines[name].length);
  const all = names.map((name) => lines[name]).concat(mean && mean.length ? [mean] : []);
  if (!all.length) { host.replaceChildren(make("p", { class: "note" }, none)); return; }
  let left = Infinity, right = -Infinity, low = Infinity, high = -Infinity;
  for (const points of all) for (const [x, y] of points) {
    if (x < left) left = x; if (x > right) right = x; if (y < low) low = y; if (y > high) high = y;
  }
  if (left === right) { left -= 0.5; right += 0.5; }
  if (low === high) { const room = Math.abs(low) * 0.1 || 0.5; low -= room; high += room; }
  const across = (x) => BOX.left + (x - left) / (right - left) * (BOX.width - BOX.left - BOX.right);
  const up = (y) => BOX.height - BOX.bottom - (y - low) / (high - low) * (BOX.height - BOX.top - BOX.bottom);
  const about = `${label} over ${along}, ${names.length} lines, from ${number(low)} to ${number(high)}`;
  const svg = drawn("svg", { viewBox: `0 0 ${BOX.width} ${BOX.height}`, role: "img", "aria-label": about });
  for (const tick of ticks(low, high, 5)) {
    svg.append(drawn("line", { class: "grid", x1: BOX.left, x2: BOX.width - BOX.right, y1: up(tick), y2: up(tick) }));
    svg.append(drawn("text", { x: BOX.left - 6, y: up(tick) + 4, "text-anchor": "end" }, tickWords(tick)));
  }
  for (const tick of ticks(left, right, 6).filter(Number.isInteger)) {
    svg.append(drawn("text", { x: across(tick), y: BOX.height - 18, "text-anchor": "middle" }, String(tick)));
  }
  svg.append(drawn("text", { x: BOX.width - BOX.right, y: BOX.height - 3, "text-anchor": "end" }, along));
  const path = (points) => points.length === 1
    ? `M${across(points[0][0]) - 3} ${up(points[0][1])}h6`
    : "M" + points.map(([x, y]) => `${across(x).toFixed(1)} ${up(y).toFixed(1)}`).join("L");
  const crowd = names.length > MOST_OWN_COLOURS;
  names.forEach((name, place) => {
    const line = drawn("path", { d: path(lines[name]), class: crowd ? "crowd" : "own" });
    if (!crowd) {
      line.style.setProperty("stroke", `var(--series-${place})`);
      line.setAttribute("stroke-dasharray", DASHES[place % DASHES.length]);
    }
    line.append(drawn("title", {}, name));
    svg.append(line);
  });
  if (mean && mean.length) svg.append(drawn("path", { d: path(mean), class: "mean" }));
  if (chosen && lines[chosen] && lines[chosen].length) {
    svg.append(drawn("path", { d: path(lines[chosen]), class: "chosen" }));
  }
  host.replaceChildren(svg, legend(names, crowd, mean && mean.length, chosen));
}

function legend(names, crowd, mean, chosen) {
  const entries = crowd ? [[`each of ${names.length} sites`, "crowd", 0]] : names.map((name, i) => [name, "own", i]);
  if (mean) entries.push(["mean of the sites", "mean", 0]);
  if (chosen && names.includes(chosen)) entries.push([chosen, "chosen", 0]);
  return make("ul", { class: "legend" }, ...entries.map(([name, kind, place]) => {
    const key = drawn("svg", { width: 30, height: 12, viewBox: "0 0 30 12", "aria-hidden": "true" });
    const line = drawn("path", { d: "M0 6h30", class: kind });
    if (kind === "own") {
      line.style.setProperty("stroke", `var(--series-${place})`);
      line.setAttribute("stroke-dasharray", DASHES[place % DASHES.length]);
    }
    key.append(line);
    return make("li", {}, key, ` ${name}`);
  }));
}

/* ---- asking ---- */

/* Who logs out asks for nothing more: the answer, that nobody is logged in, would come before the next page. */
let leaving = false;
document.addEventListener("submit", (event) => { leaving ||= event.target.matches('[action="/leave"]'); });

async function ask(path) {
  if (leaving) return new Promise(() => {});
  const answer = await fetch(path, { headers: { Accept: "application/json" } });
  if (answer.status === 401) { location.reload(); }
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

/* Return a function that works at most once in a while, and once more for what came meanwhile. */
function throttled(work, every) {
  let timer = null, last = 0;
  return () => {
    if (timer !== null) return;
    timer = setTimeout(async () => {
      timer = null;
      last = performance.now();
      try { await work(); } catch (error) { unreachable(error); }
    }, Math.max(0, last + every - performance.now()));
  };
}

function unreachable(error) {
  const place = byId("connection");
  if (place) say(place, `Not up to date: ${error.message}`);
}

function announce(text) { say(byId("told"), text); }

/* ---- the list of runs ---- */

function address(id) { return id.split("/").map(encodeURIComponent).join("/"); }

function rounds(run) { return run.rounds ? `${run.done ?? run.round} of ${run.rounds}` : NONE; }

async function listRuns() {
  const runs = await ask("/api/runs");
  fill(byId("runs"), runs.map((run) => [
    { text: run.id, href: `/runs/${address(run.id)}` },
    { text: run.state, kind: `text ${run.state}`, small: run.reason },
    run.read < 1 ? NONE : rounds(run), run.read < 1 ? NONE : String(run.sites),
    run.metric ? `${number(run.mean)} ${run.metric}` : NONE,
    number(run.epsilon), at(run.began), at(run.last),
  ]));
  byId("none").hidden = runs.length > 0;
  say(byId("connection"), `As of ${at(Date.now() / 1000)}.`);
}

/* ---- one run ---- */

function showRun(run) {
  const banner = byId("state");
  const tone = `banner ${run.state.replaceAll(" ", "-")}`;
  if (banner.className !== tone) banner.className = tone;
  say(banner.querySelector("strong"), run.state[0].toUpperCase() + run.state.slice(1) + ".");
  const reading = run.read < 1 ? ` Its log is being read: ${Math.floor(100 * run.read)} %.` : "";
  say(banner.querySelector("span"), `Round ${run.done} of ${run.rounds || "?"} is done.${reading}`);
  say(byId("reason"), run.reason);
  announce(`${run.id}: ${run.state}`);
  const away = run.sites.filter((site) => site.why);
  cards(byId("figures"), run.result ? run.result.figures : [
    { name: `Mean ${run.metric || "metric"}`, value: number(run.mean), about: "newest evaluation" },
    { name: "Rounds", value: `${run.done} of ${run.rounds || "?"}`, about: `${duration(run.seconds)}, ${dataSize(run.bytes)} of weights moved` },
    { name: "Epsilon", value: number(run.epsilon), about: run.epsilon === null ? "none told" : "most exposed site" },
    { name: "Sites", value: String(run.sites.length), about: away.length ? `${away.length} need a look` : "all is well" },
    { name: "Last event", value: at(run.last).slice(11), about: at(run.last).slice(0, 10) },
  ]);
  const final = run.result ? run.result.final : null;
  head(byId("sites"), ["Site", "State", run.metric || "Metric", "Epsilon", "Loss", "Rounds", "Missed", "Worked", "Sent", "Received", "Last word"]);
  fill(byId("sites"), run.sites.map((site) => [
    site.site, { text: site.state, kind: "text", small: site.why },
    final && final[site.site] ? { text: number(final[site.site].value), small: span(final[site.site]) } : number(site.value),
    number(site.epsilon), number(site.loss), String(site.rounds), String(site.missed), duration(site.seconds),
    dataSize(site.bytes_sent), dataSize(site.bytes_received), at(site.since),
  ]));
  choices(byId("chosen"), run.sites.map((site) => site.site), "none");
  choices(byId("log-site"), run.sites.map((site) => site.site), "all");
  byId("report").hidden = !run.report;
  showShift(run.result);
  showDeeds(run);
}

function span(of) { return of.low === null ? "" : `${number(of.low)} to ${number(of.high)}`; }

function choices(select, names, none) {
  if (select.options.length === names.length + 1) return;
  const chosen = select.value;
  select.replaceChildren(make("option", { value: "" }, none), ...names.map((name) => make("option", { value: name }, name)));
  select.value = names.includes(chosen) ? chosen : "";
}

function showShift(result) {
  const matrix = result ? result.matrix : [], distances = result ? result.distances : [];
  byId("shift").hidden = !matrix.length && !distances.length;
  if (byId("shift").hidden) return;
  say(byId("answer"), result.summary);
  byId("answers").replaceChildren(...result.benefit.map((one) =>
    make("li", { class: one.verdict }, make("strong", {}, `${one.site}: ${one.title.toLowerCase()}. `), one.text)));
  const sites = result.benefit.map((one) => one.site);
  head(byId("matrix"), [`${result.metric} of`, ...sites, "Mean", "Worst"]);
  fill(byId("matrix"), matrix.map((row) => [
    row.model, ...row.cells.map((cell) => cell.shade === null
      ? { text: cell.value, small: cell.why, kind: "empty" }
      : { text: cell.value, small: [cell.patients, cell.interval].filter(Boolean).join(", "), kind: "shade", shade: cell.shade }),
    number(row.mean), number(row.worst),
  ]));
  byId("distances").replaceChildren(...distances.map((of) => {
    const table = make("table", {}, make("thead", {}, make("tr")), make("tbody"));
    head(table, ["From", ...of.rows.map(([site]) => site)]);
    fill(table, of.rows.map(([site, values]) => [site, ...values.map((value) => value === null ? NONE : number(value))]));
    return make("section", {}, make("h3", {}, of.measure),
      make("p", { class: "note" }, `Equal sites would show ${number(of.floor)}: ${of.about}.`),
      make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": `Distances: ${of.measure}` }, table));
  }));
}

const NO_LOSS = "None is told: with differential privacy it never leaves, and else a site's policy says whether it may.";
const NO_EPSILON = "None is told: no differential privacy, or no full round yet.";
let newest = null;

function drawCurves() {
  if (!newest) return;
  const chosen = byId("chosen").value;
  chart(byId("values"), newest.values, { label: newest.metric || "metric", mean: newest.mean, chosen });
  chart(byId("losses"), newest.loss, { label: "training loss", chosen, none: NO_LOSS });
  chart(byId("spent"), newest.epsilon, { label: "epsilon spent", chosen, none: NO_EPSILON });
  chart(byId("times"), { "seconds of a round": newest.seconds }, { label: "seconds of a round" });
}

async function loadCurves(id) {
  newest = await ask(`/api/runs/${address(id)}/curves`);
  drawCurves();
}

async function loadLog(path) {
  const asked = new URLSearchParams({ site: byId("log-site").value, text: byId("log-text").value, last: "100" });
  if (byId("log-all").checked) asked.set("all", "1");
  const events = await ask(`${path}?${asked}`);
  fillFromTop(byId("log"), events.reverse().map((event) => [
    at(event.time), { text: event.event, kind: "text" }, { text: event.told, kind: "text" }]));
}

function followRun(id) {
  const [curves, unseen] = [CURVES_EVERY_MS, UNSEEN_EVERY_MS].map((every) => throttled(() => loadCurves(id), every));
  const log = throttled(() => loadLog(`/api/runs/${address(id)}/log`), CURVES_EVERY_MS / 2);
  const quick = throttled(() => loadLog(`/api/runs/${address(id)}/log`), 200);
  for (const name of ["log-site", "log-text", "log-all"]) byId(name).addEventListener("input", quick);
  byId("chosen").addEventListener("change", drawCurves);
  if (byId("stop")) offerDeeds(id);
  let drawn = -1, source = null;
  const listen = () => {
    source = new EventSource(`/api/runs/${address(id)}/events`);
    source.addEventListener("state", (message) => {
      const run = JSON.parse(message.data);
      showRun(run);
      // Until they are a pixel longer, curves look the same, but for a leap up or down.
      if (run.ended || Math.abs(run.done - drawn) >= Math.max(1, drawn / MOST_WIDE_PX)) { drawn = run.done; curves(); }
      else if (run.done !== drawn) unseen();
      log();
      say(byId("connection"), `${run.ended ? "Over" : "Live"}; newest event ${at(run.last)}.`);
    });
    source.addEventListener("gone", () => { source.close(); unreachable(new Error("the run is gone")); });
    source.addEventListener("error", () => {
      // After an answer that is no stream it is not tried again: nobody is logged in, or the run is gone.
      if (source.readyState === EventSource.CLOSED) location.reload();
      else unreachable(new Error("the connection is lost; it is tried again"));
    });
  };
  // A browser has six connections to a server for all tabs: one that nobody sees gives its own back.
  document.addEventListener("visibilitychange", () => {
    if (source) source.close();
    if (!document.hidden) listen();
  });
  document.addEventListener("submit", () => { if (leaving && source) source.close(); });
  if (!document.hidden) listen();
}

/* ---- what a person does, after a second thought ---- */

async function change(path, body) {
  const answer = await fetch(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}

function confirmed(title, text, word) {
  const dialog = byId("confirm");
  say(byId("confirm-title"), title);
  say(byId("confirm-text"), text);
  say(byId("confirm-yes"), word);
  return new Promise((settle) => {
    const end = (answer) => { dialog.close(); settle(answer); };
    byId("confirm-yes").onclick = () => end(true);
    byId("confirm-no").onclick = () => end(false);
    dialog.oncancel = () => settle(false);
    dialog.showModal();
    byId("confirm-no").focus();
  });
}

async function after(work) {
  say(byId("wrong"), "");
  try { await work(); } catch (error) { say(byId("wrong"), error.message); }
}

function offerDeeds(id) {
  const deeds = {
    stop: ["Stop this study?", "Its sites stop within a batch. What was spent of their epsilon stays spent; the last full round is kept, and Resume goes on from it."],
    resume: ["Go on with this study?", "It goes on from its last full round. Sites spend epsilon again."],
  };
  for (const [deed, [title, text]] of Object.entries(deeds)) {
    byId(deed).onclick = () => after(async () => {
      const word = deed[0].toUpperCase() + deed.slice(1);
      if (await confirmed(title, `${id}: ${text}`, word)) {
        await change(`/api/runs/${address(id)}/${deed}`, { confirmed: id });
        announce(`${word}: asked for`);
      }
    });
  }
}

function showDeeds(run) {
  if (!byId("stop")) return;
  const over = ["completed", "partial", "failed", "stopped"].includes(run.state);
  byId("stop").disabled = over || run.state === "stopping";
  byId("resume").disabled = !["failed", "stopped"].includes(run.state);
}

async function listSites() {
  const sites = await ask("/api/sites");
  fill(byId("sites"), sites.map((site) => [
    site.site, { text: site.status, kind: site.status === "admitted" ? "text" : "text why", small: site.reason },
    site.days_left === null ? NONE : String(site.days_left),
    { text: site.connected ? "connected" : "away", kind: site.connected ? "text" : "text why" },
    site.run ? { text: site.run, kind: "text", href: `/runs/${address(site.run)}`, small: `round ${site.round}` } : { text: NONE, kind: "text" },
    at(site.heard_at), at(site.moved_at),
  ]));
  byId("none").hidden = sites.length > 0;
  say(byId("connection"), `As of ${at(Date.now() / 1000)}.`);
}

function offerStudy() {
  byId("new").addEventListener("submit", (event) => {
    event.preventDefault();
    const settings = byId("settings").value.split("\n").map((line) => line.trim()).filter(Boolean);
    const sites = byId("for-sites").value.trim();
    after(async () => {
      if (!await confirmed("Start this study?", `${settings.join(" ")}, at sites: ${sites}`, "Start")) return;
      const made = await change("/api/runs", {
        settings: [...settings, `sites=${sites}`], join_timeout_s: 60 * Number(byId("minutes").value) });
      location.assign(`/runs/${address(made.id)}`);
    });
  });
}

/* ---- one site ---- */

const WORDS = { proposed: "waits for an answer", approved: "approved", rejected: "rejected" };

/* A card stays while its study does, so that focus and selection stay where they are. */
function studyCard(digest) {
  const card = make("article", {}, make("h3"), make("p", {}, make("strong"), make("span")),
    make("p", { class: "note" }, `digest ${digest}`), make("dl", { class: "words" }), make("div", { class: "fields" }));
  card.id = `study-${digest}`;
  for (const [deed, title] of [["approve", "Approve"], ["reject", "Reject"]]) {
    const button = make("button", deed === "reject" ? { class: "danger" } : {}, title);
    button.onclick = () => after(() => answerStudy(card.study, deed, title));
    card.lastElementChild.append(button);
  }
  return card;
}

function showStudy(card, study) {
  const [title, about, , words, deeds] = card.children;
  const kind = `card study ${study.status}`, told = study.told;
  card.study = study;
  if (card.className !== kind) card.className = kind;
  say(title, study.name || "a study that was not asked for yet");
  say(about.firstElementChild, WORDS[study.status] || study.status);
  say(about.lastElementChild, (study.decided ? ` ${study.decided} by ${study.decided_by}` : "") +
    (told.updates ? `; updates that have left this site: ${told.updates}${told.epsilon === null ? "" : `, with epsilon ${number(told.epsilon)} spent`}` : ""));
  const lines = Object.entries(study.words).filter(([name]) => name !== "name"), mark = JSON.stringify(lines);
  if (words.dataset.mark !== mark) {
    words.dataset.mark = mark;
    words.replaceChildren(...lines.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
  }
  deeds.firstElementChild.disabled = study.status === "approved";
  deeds.lastElementChild.disabled = study.status === "rejected";
}

async function answerStudy(study, deed, title) {
  const text = deed === "approve"
    ? `${study.name} may then train on this site's patients. ${study.words.costs ? `This costs ${study.words.costs}.` : ""}`
    : `${study.name} may then not run here, whatever the policy's list says.`;
  const who = `The answer is written down as that of ${answersAs}, who started this page.`;
  if (!await confirmed(`${title} this study?`, `${text} ${who} Digest ${study.digest}.`, title)) return;
  const answer = await change(`/api/studies/${study.digest}/${deed}`, { confirmed: study.digest });
  await showSite();
  announce(`${study.name}: ${answer.status}`);
}

let answersAs = "";

function showStudies(list, studies) {
  const focused = document.activeElement, known = new Set(studies.map((study) => `study-${study.digest}`));
  for (const card of [...list.children]) if (!known.has(card.id)) card.remove();
  studies.forEach((study, place) => {
    const card = byId(`study-${study.digest}`) || studyCard(study.digest);
    showStudy(card, study);
    if (list.children[place] !== card) list.insertBefore(card, list.children[place] || null);
  });
  if (list.contains(focused) && document.activeElement !== focused) focused.focus();
}

async function showSite() {
  const site = await ask("/api/site");
  answersAs = site.person;
  showStudies(byId("studies"), site.studies);
  byId("none").hidden = site.studies.length > 0;
  fill(byId("ledgers"), site.ledgers.map((of) => of.problem
    ? [of.name, { text: NONE, small: of.problem, kind: "why" }, NONE, NONE, NONE, NONE]
    : [of.name, String(of.patients), String(of.charges), of.unbounded ? "infinite" : number(of.epsilon), of.cap === null ? "none" : number(of.cap), number(of.delta)]));
  const spent = Object.fromEntries(site.ledgers.filter((of) => of.curve).map((of) => [of.name, of.curve]));
  chart(byId("spent"), spent, { label: "epsilon for life", along: "charges" });
  showTold(site);
  await loadLines();
  say(byId("connection"), `As of ${at(Date.now() / 1000)}.`);
}

function showTold(site) {
  const names = Object.fromEntries(site.studies.map((study) => [study.digest, study.name]));
  const metrics = [...new Set(Object.values(site.curves).flatMap((of) => Object.keys(of)))].sort();
  const host = byId("curves");
  while (host.children.length > metrics.length) host.lastElementChild.remove();
  metrics.forEach((metric, place) => {
    if (!host.children[place]) host.append(make("section", {}, make("h3"), make("div", { class: "chart" })));
    say(host.children[place].firstElementChild, metric);
    const lines = Object.fromEntries(Object.entries(site.curves).filter(([, of]) => of[metric])
      .map(([digest, of]) => [`${names[digest] || "study"} ${digest.slice(0, 8)}`, of[metric]]));
    chart(host.children[place].lastElementChild, lines, { label: metric, along: "rounds" });
  });
}

async function loadLines() {
  const asked = new URLSearchParams({ of: byId("log-of").value, text: byId("log-text").value, last: "100" });
  const lines = await ask(`/api/log?${asked}`);
  fillFromTop(byId("log"), lines.reverse().map((line) => [{ text: line, kind: "text line" }]));
}

function followSite() {
  for (const name of ["log-of", "log-text"]) byId(name).addEventListener("input", throttled(loadLines, 300));
  every(showSite, LIST_EVERY_MS);
}

function every(work, milliseconds) {
  const again = async () => {
    try { await work(); } catch (error) { unreachable(error); }
    setTimeout(again, milliseconds);
  };
  again();
}

const VIEWS = {
  runs: () => every(listRuns, LIST_EVERY_MS),
  run: () => followRun(document.body.dataset.run),
  sites: () => every(listSites, LIST_EVERY_MS),
  new: offerStudy,
  site: followSite,
};
const view = VIEWS[document.body.dataset.view];
if (view) view();
