// The page: asks the API for facts, shows them, and follows the changes.

import { ago, amount, badge, caused, colour, count, empty, feature, grow, h, money, safe, scroll, share, signed, valued, when, words } from "/page/parts.js";
import { bar, flows, interval, part, pulls, ShopperMap } from "/page/drawings.js";

const EVERY_MS = 5_000;
const SHOWN = 60;
const byId = (id) => document.getElementById(id);
const state = { now: null, segments: [], units: new Map(), held: false, waiting: [], user: null, lastId: null };

// -- asking -----------------------------------------------------------------------------------

class Refused extends Error {
  constructor(status, problem) {
    super(problem?.detail || problem?.title || `the API answers ${status}`);
    this.status = status;
    this.type = problem?.type ?? "";
  }
}

function headers(more = {}) {
  const token = sessionStorage.getItem("token");
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

async function ask(path) {
  let answer;
  try {
    answer = await fetch(path, { headers: headers(), cache: "no-store" });
  } catch {
    throw new Refused(0, { detail: "The API does not answer." });
  }
  if (answer.ok) return answer.json();
  const refused = new Refused(answer.status, await answer.json().catch(() => null));
  if (refused.status === 401) gate(sessionStorage.getItem("token") ? "That token is not known." : "");
  throw refused;
}

/** Fill a part of the page; what goes wrong is told there, and nowhere else breaks. */
async function fill(id, make) {
  const place = byId(id);
  try {
    const made = await make();
    if (made) place.replaceChildren(...[made].flat());
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.status === 401) return;
    const text = error.type.endsWith(":no-model") ? empty("No model has been learned yet. It comes with the first few hundred shoppers.")
      : h("p", { class: "error", role: "alert" }, safe(error.message));
    place.replaceChildren(place.tagName === "UL" ? h("li", {}, text) : text);
  }
}

function gate(said = "") {
  byId("gate").hidden = false;
  byId("facts").hidden = true;
  byId("gate-error").textContent = said;
  byId("attention-body").replaceChildren(empty("Facts are shown to whoever has a token."));
  live("down", "signed out");
}

function live(how, text) {
  byId("live").dataset.state = how;
  if (byId("live").textContent !== text) byId("live").textContent = text;
}

/** The pipeline's clock, which is no earlier than what it tells. */
function later(at) {
  if (!state.now || Date.parse(at) > Date.parse(state.now)) state.now = at;
  return state.now;
}

// -- what needs attention -----------------------------------------------------------------------

async function attention() {
  const facts = await ask("/v1/standing");
  later(facts.latest_change ?? facts.at);
  later(facts.at);
  byId("health").replaceChildren(...[
    ["Shoppers", count(facts.users)],
    ["Model", facts.model ?? "none yet"],
    ["Last round", facts.round ? ago(facts.round, state.now) : "none yet"],
    ["Partitions at work", `${facts.partitions_begun} of ${facts.partitions}`],
    ["Waiting to be sent", count(facts.waiting_entries)],
    ["Latest change", facts.latest_change ? ago(facts.latest_change, state.now) : "none yet"],
  ].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  if (!facts.attention.length) return h("p", { class: "well" }, "All is well: nothing needs you.");
  return facts.attention.map((one) => h("div", { class: `alert ${one.severity}` },
    h("strong", {}, `${one.severity === "critical" ? "Now: " : ""}${one.what}`),
    h("span", { class: "how" }, one.how.replaceAll("`", ""))));
}

// -- segments ------------------------------------------------------------------------------------

async function segments(moves) {
  const facts = await ask("/v1/segments");
  state.segments = facts.segments;
  for (const segment of facts.segments) for (const entry of segment.profile) state.units.set(entry.feature, entry.unit);
  kinds(facts.segments);
  const of = new Map(moves.segments.map((one) => [one.segment, one]));
  const sizes = new Map();
  for (const one of facts.segments) sizes.set(one.kind, (sizes.get(one.kind) ?? 0) + one.size);
  byId("kinds").replaceChildren(...[bar([...sizes].sort((a, b) => b[1] - a[1]))].filter(Boolean));
  byId("levels").replaceChildren(...levels(facts.levels ?? []));
  const profiled = (segment, name) => segment.profile.find((entry) => entry.feature === name);
  // What reads the same on every card marks none of them.
  const differs = (name) => new Set(facts.segments.map((segment) => valued(profiled(segment, name)))).size > 1;
  return [...facts.segments].sort((a, b) => b.size - a.size).map((one) => {
    const move = of.get(one.id) ?? { came: 0, left: 0, came_back: 0 };
    const spend = one.scores.find((score) => score.unit === "money"), chances = one.scores.filter((score) => score.unit === "probability");
    const buy = chances[0], past = chances.findLast((score) => score.came !== null);
    const earned = one.profile.find((entry) => entry.feature.startsWith("revenue"));
    const marks = one.marks.filter(differs).slice(0, 3).map((name) => profiled(one, name));
    return h("li", { class: `card ${colour(one.kind)}` },
      badge(one.kind),
      h("h3", {}, safe(one.name)),
      h("div", { class: "size" }, count(one.size), h("small", {}, `shoppers, ${share(facts.users ? one.size / facts.users : 0)}`)),
      part(facts.users ? one.size / facts.users : 0),
      trend(move),
      move.came_back ? h("p", { class: "meta" }, h("b", {}, count(move.came_back)), " came back") : null,
      spend ? h("p", { class: "meta" }, "expected to spend ", h("b", {}, money(spend.total)), `, ${money(spend.mean)} each`)
        : earned ? h("p", { class: "meta" }, "typically spent ", h("b", {}, earned.value < 0.5 ? "nothing" : money(earned.value))) : null,
      buy ? h("p", { class: "meta" }, "will buy again: ", h("b", {}, share(buy.mean))) : null,
      past ? h("p", { class: "meta" }, "of ", count(past.looks), " looked at before, ", h("b", {}, share(past.came)), ` came back (${share(past.foretold)} foretold)`) : null,
      h("ul", { class: "marks", "aria-label": "What marks it" }, marks.map((mark) => h("li", {}, [h("span", {}, feature(mark.feature)), h("b", {}, valued(mark))]))));
  });
}

/** Whether a segment grows, in the time that is compared with. */
function trend(move) {
  const net = move.came - move.left, within = byId("within").selectedOptions[0].textContent.replace("the last", "in the last");
  if (!move.came && !move.left) return h("p", { class: "meta" }, `nobody came or left ${within}`);
  return h("p", { class: "meta" }, h("span", { "aria-hidden": "true" }, net > 0 ? "\u25b2 " : net < 0 ? "\u25bc " : ""), h("b", {}, signed(net, count)),
    ` ${within}: ${count(move.came)} came, ${count(move.left)} left`);
}

/** How many are on each step, the highest first; nothing where no levels are declared. */
function levels(steps) {
  const names = [...new Set(steps.map((one) => one.level))];
  return names.map((name) => h("div", { class: "level" }, h("h3", { class: "small" }, `Level: ${words(safe(name))}`),
    h("dl", { class: "strip" }, steps.filter((one) => one.level === name).map((one) => h("div", {},
      h("dt", {}, words(safe(one.step)), one.limits.length ? ` (from ${one.limits.map((limit) => `${amount(limit.least)}, ${feature(limit.of)}`).join("; or ")})` : ""),
      h("dd", {}, count(one.users)))))));
}

function kinds(known) {
  const select = byId("kind"), there = new Set([...select.options].map((one) => one.value));
  for (const kind of new Set(known.map((one) => one.kind))) {
    if (!there.has(kind)) select.append(h("option", { value: kind }, words(kind)));
  }
}

// -- the feed ------------------------------------------------------------------------------------

function change(one) {
  const why = (one.why ?? []).slice(0, 2).map((one) => `${feature(one.feature)} ${valued({ ...one, unit: state.units.get(one.feature) })}`).join(", ");
  return h("li", {},
    h("button", { type: "button", class: "plain", onclick: () => pick(one.user) }, safe(one.user)), " ",
    one.kind_from && one.kind_from !== one.kind_to ? [badge(one.kind_from), " to "] : null, badge(one.kind_to), " ",
    h("span", {}, safe(one.name_to ?? "")), " ", when(one.at, later(one.at)),
    h("div", { class: "why" }, one.kind_from ? caused(one.cause) : "for the first time", why ? `; ${why}` : ""));
}

function show(changes) {
  if (state.held) {
    state.waiting = [...state.waiting, ...changes].slice(-SHOWN);
    byId("hold").textContent = `Go on (${state.waiting.length})`;
    return;
  }
  const feed = byId("feed");
  feed.querySelector(".empty")?.remove();
  feed.prepend(...changes.slice(-SHOWN).reverse().map(change));
  while (feed.children.length > SHOWN) feed.lastChild.remove();
}

let following = null;

/** Follow the changes: the newest there are, then as they come. Comes back by itself. */
async function follow() {
  following?.abort();
  const mine = (following = new AbortController());
  const kind = byId("kind").value, filter = kind ? `kind=${encodeURIComponent(kind)}` : "";
  state.lastId = null;
  byId("feed").replaceChildren();
  for (let wait = 500; !mine.signal.aborted; wait = Math.min(wait * 2, 10_000)) {
    try {
      if (state.lastId === null) {
        const { changes } = await ask(`/v1/changes?limit=${SHOWN}${filter && "&"}${filter}`);
        if (mine.signal.aborted) return;
        state.lastId = changes.at(-1)?.id ?? "";
        show(changes);
        if (changes.length && state.user === null) pick(changes.at(-1).user, false);
        if (!changes.length) byId("feed").replaceChildren(h("li", { class: "empty" }, "No changes yet."));
      }
      const more = state.lastId ? { "Last-Event-ID": state.lastId } : {};
      const answer = await fetch(`/v1/changes/events?${filter}`, { headers: headers(more), signal: mine.signal, cache: "no-store" });
      if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => null));
      live("up", "live");
      wait = 500;
      await read(answer.body.pipeThrough(new TextDecoderStream()).getReader());
    } catch (error) {
      if (mine.signal.aborted || error.status === 401) return;
    }
    live("down", "connecting again");
    await new Promise((done) => setTimeout(done, wait));
  }
}

async function read(reader) {
  for (let rest = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    const changes = [];
    for (const event of events) {
      const lines = event.split("\n");
      const data = lines.find((line) => line.startsWith("data: ")), id = lines.find((line) => line.startsWith("id: "));
      if (lines[0].startsWith("event: gap")) { state.lastId = null; return; }
      if (data) changes.push(JSON.parse(data.slice(6)));
      if (id) state.lastId = id.slice(4);
    }
    if (changes.length) show(changes);
  }
}

// -- one shopper ---------------------------------------------------------------------------------

function pick(user, named = true) {
  state.user = user;
  if (named) byId("user").value = user;
  byId("story").replaceChildren(empty("Looking ..."));
  return fill("story", () => story(user));
}

/** So many days from now, if nothing happens. */
const after = (days) => (days === 0 ? "at the next look" : days === 1 ? "in a day of silence" : `in ${days} days of silence`);

async function story(user) {
  const path = `/v1/users/${encodeURIComponent(user)}`;
  const [facts, why, { changes }] = await Promise.all([ask(path), ask(`${path}/why`), ask(`${path}/changes?limit=50`)]);
  if (state.user !== user) return null;
  const segment = facts.segment, names = new Map(state.segments.map((one) => [one.id, one.name]));
  const next = why?.silence?.[0], told = why?.acts ?? [];
  return [
    h("h3", {}, safe(facts.user)),
    h("p", { class: "meta" }, segment ? [badge(segment.kind), " ", h("b", {}, safe(segment.name)), " since ", when(segment.since, facts.at), ". "] : "In no segment yet. ",
      facts.last_seen ? ["Last seen ", when(facts.last_seen, facts.at), "."] : null),
    (facts.levels ?? []).length ? h("p", { class: "meta" }, facts.levels.map((one) => [`${words(safe(one.level))}: `, h("b", {}, one.step === null ? "no step" : words(safe(one.step))), ". "]).flat()) : null,
    (facts.scores ?? []).length ? h("dl", { class: "strip" }, facts.scores.map((one) => h("div", {}, h("dt", {}, words(one.score)), h("dd", {}, one.unit === "money" ? money(one.value) : share(one.value))))) : null,
    h("h4", {}, "What comes next"),
    h("p", {}, next ? `If nothing happens: ${safe(next.name)} ${after(next.days)} (${words(next.kind)}).` : "Silence alone moves them nowhere soon."),
    why?.rests_until ? h("p", {}, `Their silence is usual for them: until ${why.rests_until.slice(0, 10)} only what they do moves them.`) : null,
    ...(why?.levels ?? []).filter((one) => one.silence.length).map((one) => h("p", {}, `${words(safe(one.level))}: ${one.silence[0].step === null ? "no step" : words(safe(one.silence[0].step))} ${after(one.silence[0].days)}.`)),
    told.length ? h("ul", {}, told.slice(0, 4).map((act) => h("li", {}, `${act.event}${act.value ? ` of ${amount(act.value)}` : ""}, ${act.times === 1 ? "once" : `${act.times} times`} now: `, h("b", {}, safe(act.name))))) : null,
    why?.margin ? [h("h4", {}, "Why they are there"), scroll("What holds this shopper", pulls(why.margin, safe(names.get(why.margin.other) ?? `segment ${why.margin.other}`)))] : null,
    h("h4", {}, "What happened"),
    changes.length ? h("ol", { class: "timeline" }, [...changes].reverse().map((one) => h("li", {},
      when(one.at), " ", happened(one)))) : empty("No change of theirs is in memory."),
    h("details", {}, h("summary", {}, `All ${facts.features.length} features`), scroll("All features", h("table", {},
      h("tbody", {}, facts.features.map((one) => h("tr", {}, h("th", { scope: "row" }, feature(one.feature)), h("td", { class: "number" }, valued(one)))))))),
  ].flat().filter(Boolean);
}

/** A change of segment, or a crossing from a step of a level to another. */
function happened(one) {
  if ("step_to" in one) return [`${words(safe(one.level))}: `, h("b", {}, one.step_to === null ? "no step" : words(safe(one.step_to))), one.step_from ? ` after ${words(safe(one.step_from))}` : "", ` (${caused(one.cause)})`];
  return [badge(one.kind_to), " ", h("b", {}, safe(one.name_to ?? "")), ` (${one.kind_from ? caused(one.cause) : "for the first time"})`];
}

// -- campaigns and the model ---------------------------------------------------------------------

const VERDICTS = { helps: "It helps", harms: "It does harm", not_enough_yet: "Not known yet" };

async function campaigns() {
  const { campaigns: all } = await ask("/v1/campaigns");
  if (!all.length) return empty("No campaigns are declared.");
  return [h("ul", { class: "cards wide" }, all.map(campaign)),
    h("p", { class: "hint" }, "Buyers among those treated, less those held out, in points. The intervals hold however often one looks.")];
}

function campaign(one) {
  const effects = one.effects.filter((effect) => effect.declared), compared = effects.flatMap((effect) => effect.comparisons);
  return h("li", { class: "card" },
    h("h3", {}, safe(one.name), one.paused ? " (paused)" : ""),
    h("p", { class: "meta" }, h("b", {}, count(one.outcomes.sent ?? 0)), " sent, of ", h("b", {}, count(one.looked_at)), " changes seen"),
    effects.some((effect) => !effect.as_declared) ? h("p", { class: "error" }, "Its arms are not as large as declared: what is measured is not to be believed.") : null,
    compared.length ? compared.map((arm) => armOf(arm, compared.length > 1)) : h("p", { class: "meta" }, "Nothing is measured of it."));
}

function armOf(arm, named) {
  const bought = arm.conversion;
  return h("div", { class: "arm" },
    h("p", { class: `verdict ${arm.verdict}` }, named ? `${safe(arm.arm)}: ` : "", VERDICTS[arm.verdict] ?? words(arm.verdict),
      arm.missing ? h("span", { class: "hint" }, `, about ${count(arm.missing)} shoppers more`) : null),
    ...(arm.users && arm.held_out_users ? [h("p", { class: "meta" }, h("b", {}, share(bought.treated)), ` of ${count(arm.users)} treated bought, `,
      h("b", {}, share(bought.held_out)), ` of ${count(arm.held_out_users)} held out`), interval(bought)] : [h("p", { class: "meta" }, "Nobody's time to buy is over yet.")]));
}

async function model() {
  const [facts, history] = await Promise.all([ask("/v1/model"), ask("/v1/lineage")]);
  const names = new Map(state.segments.map((one) => [one.id, one.name]));
  const name = (id) => safe(names.get(id) ?? `segment ${id}`);
  const known = new Set(), events = [];
  for (const one of [...history.records, ...history.lineage]) {
    const key = `${one.event} ${one.segment} ${one.model}`;
    if (!known.has(key)) { known.add(key); events.push(one); }
  }
  events.sort((a, b) => (a.at < b.at ? 1 : -1));
  return [
    h("dl", { class: "strip" }, [["Model", facts.model], ["Learned", ago(facts.at, facts.round)], ["Shoppers", count(facts.users)],
      ["Silhouette", facts.silhouette === null ? "not known" : amount(facts.silhouette)], ["Inertia", amount(facts.inertia)]]
      .map(([title, value]) => h("div", {}, h("dt", {}, title), h("dd", {}, value)))),
    h("h3", { class: "small" }, "Populations"),
    h("ul", {}, facts.populations.map((one) => h("li", {}, `${words(one.name)}: ${count(one.users)} shoppers in ${one.segments.length} segments`))),
    h("h3", { class: "small" }, "What became of segments"),
    ...(events.length ? timeline(events, name) : [empty("Nothing yet: segments are as they began.")]),
  ];
}

const BECAME = {
  born: "began", split: "was split off from", succeeded: "took over from", emerged: "emerged", absorbed: "was absorbed by",
  ceded: "gave most shoppers to", dissolved: "dissolved", renamed: "has this name now",
};

/** What an event of a segment says, in words. */
function became(one, name) {
  const turn = /^kind:(.*)->(.*)$/.exec(one.event);
  if (turn) return [" was ", badge(turn[1]), " and is now ", badge(turn[2])];
  const others = one.others.map(name).join(", ");
  return [` ${BECAME[one.event] ?? words(one.event)}`, others ? ` ${others}` : ""];
}

/** The newest few; the older ones can be opened. */
function timeline(events, name) {
  const list = (some) => h("ol", { class: "timeline" }, some.map((one) => h("li", {}, when(one.at), " ", h("b", {}, one.name ? safe(one.name) : name(one.segment)),
    became(one, name), h("span", { class: "hint" }, ` (model ${one.model})`))));
  const older = events.slice(8, 40);
  return [list(events.slice(0, 8)), older.length ? h("details", { id: "older", open: byId("older")?.open ?? false }, h("summary", {}, `${older.length} before`), list(older)) : null].filter(Boolean);
}

// -- at work -------------------------------------------------------------------------------------

const map = new ShopperMap(byId("map"), pick);
let slow = 0;

async function refresh() {
  await fill("attention-body", attention);
  if (!byId("gate").hidden) return;
  const within = byId("within").value;
  let moves = { segments: [] };
  await fill("flows", async () => {
    moves = await ask(`/v1/flows?within=${within}`);
    const open = byId("flows").querySelector("details")?.open, made = flows(moves, byId("flows").clientWidth);
    if (open) made.find((one) => one.tagName === "DETAILS")?.setAttribute("open", "");
    return made;
  });
  await fill("segments", () => segments(moves));
  await fill("map", async () => { map.show(await ask("/v1/map?limit=400"), state.segments); });
  grow(state.now);
  // Whoever waits for the first model sees it when it is there.
  if (slow++ % 3 === 0 || !byId("model").querySelector("dl")) {
    await fill("campaigns", campaigns);
    await fill("model", model);
  }
}

async function keepFresh() {
  for (;;) {
    await new Promise((done) => setTimeout(done, EVERY_MS));
    if (document.visibilityState === "visible" && byId("gate").hidden) await refresh();
  }
}

function theme(chosen) {
  const dark = (chosen ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  if (chosen) document.documentElement.dataset.theme = chosen;
  byId("theme").setAttribute("aria-pressed", String(dark));
}

byId("theme").addEventListener("click", () => {
  const chosen = byId("theme").getAttribute("aria-pressed") === "true" ? "light" : "dark";
  localStorage.setItem("theme", chosen);
  theme(chosen);
});
byId("within").addEventListener("change", refresh);
byId("kind").addEventListener("change", follow);
byId("hold").addEventListener("click", () => {
  state.held = !state.held;
  byId("hold").setAttribute("aria-pressed", String(state.held));
  byId("hold").textContent = state.held ? "Go on" : "Hold";
  if (!state.held) show(state.waiting.splice(0));
});
byId("story-form").addEventListener("submit", (event) => {
  event.preventDefault();
  pick(byId("user").value);
});
byId("gate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", byId("token").value.trim());
  byId("token").value = "";
  start();
});
byId("sign").addEventListener("click", () => {
  sessionStorage.removeItem("token");
  following?.abort();
  gate();
});

function start() {
  byId("gate").hidden = true;
  byId("facts").hidden = false;
  byId("sign").hidden = !sessionStorage.getItem("token");
  slow = 0;
  refresh().then(() => {
    document.body.dataset.shown = "true";
    if (byId("gate").hidden) follow();
  });
}

theme(localStorage.getItem("theme"));
start();
keepFresh();
