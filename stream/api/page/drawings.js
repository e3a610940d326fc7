// Draws flows, the map and intervals. Facts come in, drawings with words for those who do not see them go out.

import { amount, badge, caused, colour, count, empty, feature, h, s, safe, scroll, share, signed, valued, words } from "/page/parts.js";

/** Flows between kinds: kinds before on the left, after on the right. */
export function flows(facts, room) {
  const told = facts.flows.filter((one) => one.kind_from !== null);
  const fresh = facts.flows.filter((one) => one.kind_from === null).reduce((sum, one) => sum + one.changes, 0);
  const later = facts.known_since !== null && facts.known_since > facts.since;
  const note = h("p", { class: "hint" },
    told.length ? `${count(facts.changes)} moves between kinds, ${count(facts.came_back)} of them back from drifting away. ` : "",
    fresh ? `${count(fresh)} shoppers were told a kind for the first time. ` : "",
    later ? "Only what the API remembers: less than was asked for." : "");
  if (!told.length) return [empty("Nobody went from one kind to another in this time."), note];
  const total = told.reduce((sum, one) => sum + one.changes, 0);
  // As many units as there are pixels, so that words keep their size.
  const width = Math.max(280, Math.min(620, room || 520)), margin = Math.min(130, width * 0.31), right = width - margin, gap = 12, kinds = new Set(told.flatMap((one) => [one.kind_from, one.kind_to]));
  const height = Math.max(180, 40 * kinds.size);
  const side = (key) => {
    const sums = new Map();
    for (const one of told) sums.set(one[key], (sums.get(one[key]) ?? 0) + one.changes);
    const scale = (height - gap * (sums.size - 1)) / total;
    let y = 0;
    return new Map([...sums].sort((a, b) => b[1] - a[1]).map(([kind, sum]) => {
      const node = { kind, sum, y, size: Math.max(2, sum * scale), used: 0, scale };
      y += node.size + gap;
      return [kind, node];
    }));
  };
  const before = side("kind_from"), after = side("kind_to");
  const links = told.map((one) => {
    const a = before.get(one.kind_from), b = after.get(one.kind_to);
    const from = a.y + a.used + (one.changes * a.scale) / 2, to = b.y + b.used + (one.changes * b.scale) / 2;
    a.used += one.changes * a.scale;
    b.used += one.changes * b.scale;
    return s("path", {
      class: `link ${colour(one.kind_to)}`, "stroke-width": Math.max(1, one.changes * Math.min(a.scale, b.scale)),
      d: `M${margin},${from} C${width / 2},${from} ${width / 2},${to} ${right},${to}`,
    }, s("title", {}, `${words(one.kind_from)} to ${words(one.kind_to)}: ${count(one.changes)}`));
  });
  const nodes = (side, x, anchor, text) => [...side.values()].flatMap((node) => [
    s("rect", { class: `node ${colour(node.kind)}`, x, y: node.y, width: 8, height: node.size }),
    s("text", { x: text, y: node.y + node.size / 2 + 4, "text-anchor": anchor }, `${words(node.kind)} ${count(node.sum)}`),
  ]);
  const drawing = s("svg", { viewBox: `0 -6 ${width} ${height + 12}`, role: "img", "aria-label": "Flows between kinds; the table below has the numbers" },
    links, nodes(before, margin - 8, "end", margin - 12), nodes(after, right, "start", right + 12));
  const rows = told.map((one) => h("tr", {},
    h("td", {}, badge(one.kind_from)), h("td", {}, badge(one.kind_to)), h("td", { class: "number" }, count(one.changes)),
    h("td", {}, Object.entries(one.by_cause).map(([cause, n]) => `${caused(cause)} ${count(n)}`).join(", "))));
  return [drawing, note, h("details", {}, h("summary", {}, "The numbers"), scroll("The flows in numbers", h("table", {},
    h("thead", {}, h("tr", {}, ["From", "To", "Shoppers", "Why"].map((text) => h("th", { scope: "col", class: text === "Shoppers" ? "number" : null }, text)))),
    h("tbody", {}, rows))))];
}

/** All shoppers as one bar, each kind by its share; the cards below have the numbers. */
export function bar(sizes) {
  const total = sizes.reduce((sum, [, size]) => sum + size, 0);
  if (!total) return null;
  let x = 0;
  const parts = sizes.map(([kind, size]) => {
    const width = (1000 * size) / total, part = s("rect", { class: `node ${colour(kind)}`, x: x + 1, y: 0, width: Math.max(1, width - 2), height: 16 },
      s("title", {}, `${words(kind)}: ${count(size)}`));
    x += width;
    return part;
  });
  return h("figure", { class: "kinds" },
    s("svg", { viewBox: "0 0 1000 16", preserveAspectRatio: "none", role: "img", "aria-label": "Shares of the kinds" }, parts),
    h("figcaption", {}, sizes.map(([kind, size]) => h("span", {}, badge(kind), ` ${share(size / total)} `))));
}

/** A share of the whole, as a thin bar. */
export function part(of) {
  return s("svg", { class: "part", viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("rect", { class: "rest", width: 100, height: 4, rx: 2 }), s("rect", { class: "node", width: Math.max(1, 100 * of), height: 4, rx: 2 }));
}

/** A map that is moved on, not drawn anew, so that whoever moves is seen to. */
export class ShopperMap {
  constructor(place, pick) {
    this.place = place;
    this.pick = pick;
    this.dots = new Map();
    this.middles = new Map();
  }

  show(facts, segments) {
    if (!facts.shoppers.length) {
      this.place.replaceChildren(empty("There are no shoppers to show yet."));
      this.drawing = null;
      return;
    }
    const known = new Map(segments.map((one) => [one.id, one]));
    const all = [...facts.shoppers, ...facts.segments];
    const spread = (key) => {
      const sorted = all.map((one) => one[key]).sort((a, b) => a - b);
      // A few far away do not press all others together; they stand at the edge.
      const low = sorted[Math.floor(sorted.length * 0.02)], high = sorted[Math.ceil(sorted.length * 0.98) - 1];
      const ends = [Math.min(low, ...facts.segments.map((one) => one[key])), Math.max(high, ...facts.segments.map((one) => one[key]))];
      return ends[1] > ends[0] ? ends : [ends[0] - 1, ends[0] + 1];
    };
    const [x0, x1] = spread("x"), [y0, y1] = spread("y");
    const at = (one) => [
      20 + 480 * Math.min(1, Math.max(0, (one.x - x0) / (x1 - x0))),
      340 - 320 * Math.min(1, Math.max(0, (one.y - y0) / (y1 - y0))),
    ];
    if (!this.drawing) this.begin();
    this.drawing.setAttribute("aria-label",
      `${facts.shoppers.length} shoppers around ${facts.segments.length} centroids; the table of segments has their sizes`);
    this.move(this.dots, facts.shoppers, (one) => one.user, at, (one) => {
      const dot = s("circle", { r: 3.5, onclick: () => this.pick(one.user) });
      dot.append(s("title", {}, safe(one.user)));
      this.shoppers.append(dot);
      return dot;
    }, (one) => `shopper ${colour(known.get(one.segment)?.kind)}`);
    this.move(this.middles, facts.segments, (one) => one.segment, at, (one) => {
      const dot = s("circle", { r: 8 });
      dot.append(s("title", {}));
      this.centroids.append(dot);
      return dot;
    }, (one) => `centroid ${colour(known.get(one.segment)?.kind)}`);
    for (const one of facts.segments) this.middles.get(one.segment).firstChild.textContent = safe(known.get(one.segment)?.name ?? one.segment);
    this.note.textContent = `Rings are the middles of segments. Right and left: ${facts.axes[0].features.map(feature).join(", ")}. `
      + `Up and down: ${facts.axes[1].features.map(feature).join(", ")}. ${share(facts.shown)} of what sets the segments apart is seen here.`;
  }

  begin() {
    this.dots.clear();
    this.middles.clear();
    this.shoppers = s("g");
    this.centroids = s("g");
    this.drawing = s("svg", { viewBox: "0 0 520 360", role: "img" }, this.shoppers, this.centroids);
    this.note = h("p", { class: "hint" });
    this.place.replaceChildren(this.drawing, this.note);
  }

  move(known, facts, name, at, make, look) {
    const there = new Set(facts.map(name));
    for (const [key, dot] of known) if (!there.has(key)) { dot.remove(); known.delete(key); }
    for (const one of facts) {
      if (!known.has(name(one))) known.set(name(one), make(one));
      const dot = known.get(name(one)), [x, y] = at(one);
      dot.setAttribute("cx", x.toFixed(1));
      dot.setAttribute("cy", y.toFixed(1));
      dot.setAttribute("class", look(one));
    }
  }
}

/** A difference with its interval, and where 0 is. */
export function interval(difference) {
  if (difference.sequence === null) return h("p", { class: "hint" }, "Too few shoppers for an interval.");
  const [low, high] = difference.sequence, text = `${signed(100 * low)} to ${signed(100 * high)} points`;
  const reach = Math.max(Math.abs(low), Math.abs(high), 1e-6) * 1.15, x = (value) => 110 + (100 * value) / reach;
  const tone = low > 0 ? "k1" : high < 0 ? "k4" : "k5";
  return [s("svg", { class: "effect", viewBox: "0 0 220 20", role: "img", "aria-label": `Difference ${signed(100 * difference.difference)} points, ${text}` },
    s("line", { class: "axis", x1: 110, x2: 110, y1: 0, y2: 20 }),
    s("g", { class: tone },
      s("line", { class: "interval", x1: x(low), x2: x(high), y1: 10, y2: 10 }),
      s("circle", { class: "point", cx: x(difference.difference), cy: 10, r: 4 }))),
  h("p", { class: "hint" }, `Between ${text}; the line in the middle is no difference.`)];
}

/** What holds a shopper (left) and what pulls them away (right). */
export function pulls(margin, name) {
  const parts = margin.parts.filter((one) => one.contribution !== 0).slice(0, 8);
  const most = Math.max(...parts.map((one) => Math.abs(one.contribution)), 1e-9);
  return h("table", {}, h("caption", {}, `Compared with ${name}, the nearest other segment`),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Feature"), h("th", { scope: "col", class: "number" }, "Value"), h("th", { scope: "col" }, "Holds, or pulls away"))),
    h("tbody", {}, parts.map((one) => {
      const width = (50 * Math.abs(one.contribution)) / most, holds = one.contribution < 0;
      return h("tr", {}, h("td", {}, feature(one.feature)), h("td", { class: "number" }, valued(one)),
        h("td", {}, s("svg", { viewBox: "0 0 100 10", role: "img", "aria-label": `${holds ? "holds" : "pulls away"}, ${amount(Math.abs(one.contribution))}` },
          s("line", { class: "axis", x1: 50, x2: 50, y1: 0, y2: 10 }),
          s("rect", { class: `node ${holds ? "k1" : "k4"}`, x: holds ? 50 - width : 50, y: 2, width, height: 6 }))));
    })));
}
