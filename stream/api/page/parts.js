// Makes elements and words. Text stays text: nothing here is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes, listeners (on...) and children; null children are left out. */
export function h(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

/** The same of a drawing. */
export function s(tag, attributes = {}, ...children) {
  return dress(document.createElementNS(SVG, tag), attributes, children);
}

function dress(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Ids may hold what is not seen, or turns the text around it: shown as escapes. */
export function safe(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const few = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });

export const count = (n) => (Math.abs(n) >= 100_000 ? short.format(n) : whole.format(n));
export const money = (n) => (Math.abs(n) >= 10_000 ? short.format(n) : whole.format(n));
/** Less than a twentieth is what is left of something that fades: nothing, to whoever reads it. */
export const amount = (n) => (Math.abs(n) >= 1_000 ? count(n) : Math.abs(n) < 0.05 ? "0" : (Math.abs(n) >= 10 ? whole : few).format(n));
export const signed = (n, format = amount) => (n > 0 ? `+${format(n)}` : n < 0 ? `\u2212${format(-n)}` : "0");
export const share = (n) => `${new Intl.NumberFormat("en", { maximumFractionDigits: n && Math.abs(n) < 0.1 ? 1 : 0 }).format(100 * n)} %`;
const SPANS = { h: "hours", d: "days" };
/** A name as people say it: at_risk is at risk. */
export const words = (text) => String(text).replaceAll("_", " ");
/** That of a feature: orders_30d is orders in 30 days; days and seconds are told with the value. */
export const feature = (name) => words(String(name)
  .replace(/_1h$/, " in an hour").replace(/_1d$/, " in a day")
  .replace(/_(\d+)([hd])$/, (_, n, unit) => ` in ${n} ${SPANS[unit]}`)
  .replace(/^days_since_/, "last ").replace(/_(days|seconds)(?= |$)/, ""));
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
/** Days and seconds, in the unit in which they are read. */
function span(seconds) {
  const [unit, size] = UNITS.find(([, one]) => Math.abs(seconds) >= 2 * one) ?? UNITS.at(-1);
  const n = amount(seconds / size);
  return `${n} ${unit}${n === "1" ? "" : "s"}`;
}
/** A value of a feature with its unit, where the name does not say it; money has no name here. */
export function valued(one, name = one.feature) {
  const seconds = { days: 86400, seconds: 1 }[one.unit];
  if (seconds) return `${span(seconds * one.value)}${name.startsWith("days_since_") ? " ago" : ""}`;
  return amount(one.value) + (one.unit && one.unit !== "money" && !name.includes(one.unit) ? ` ${one.unit}` : "");
}

const CAUSES = {
  user_moved: "acted", time_passed: "fell silent", model_moved: "the model moved", segment_retired: "the segment ended",
  identity_merged: "two ids are one", erased: "erased", segment_turned: "the segment turned",
};
/** Why somebody changed. */
export const caused = (cause) => CAUSES[cause] ?? words(cause ?? "");

/** How long ago, or ahead, by the pipeline's clock. */
export function ago(at, now) {
  const seconds = (Date.parse(now) - Date.parse(at)) / 1000;
  if (!Number.isFinite(seconds)) return "";
  const far = Math.abs(seconds);
  const [unit, size] = UNITS.find(([, one]) => far >= one) ?? UNITS.at(-1);
  if (far < 5) return "just now";
  return new Intl.RelativeTimeFormat("en", { numeric: "always" }).format(-Math.round(seconds / size), unit);
}

export const day = (at) => new Date(at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short", timeZone: "UTC" });

export function when(at, now) {
  return h("time", { datetime: at, title: `${day(at)} UTC`, "data-ago": Boolean(now) }, now ? ago(at, now) : day(at));
}

/** Time goes on for what has been told already, too. */
export function grow(now) {
  for (const one of document.querySelectorAll("time[data-ago]")) one.textContent = ago(one.dateTime, now);
}

/** A colour for a kind, the same all over the page. */
const KNOWN = ["champion", "loyal", "promising", "new", "at_risk", "dormant", "browsing"];
export function colour(kind) {
  const place = KNOWN.indexOf(kind);
  if (place >= 0) return `k${place}`;
  let sum = 0;
  for (const letter of String(kind)) sum = (sum * 31 + letter.codePointAt(0)) % 997;
  return kind ? `k${sum % 8}` : "k5";
}

export function badge(kind) {
  return h("span", { class: `badge ${colour(kind)}` }, words(kind || "no kind"));
}

export function empty(text) {
  return h("p", { class: "empty" }, text);
}

/** Something that may be wider than there is room: it can be reached, and moved, by keys. */
export function scroll(name, ...children) {
  return h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": name }, children);
}
