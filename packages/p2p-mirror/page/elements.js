/**
 * Everything the page shows goes through here, as text: names come from peers and registries, and are never HTML.
 *
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @param {(Node | string)[]} children
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** @param {string} name @param {string} [about] @param {Node[]} children @returns {Node[]} */
export const section = (name, about, ...children) => [
  element("h2", {}, `${name} `, element("span", {}, about ?? "")),
  ...children,
];

/**
 * @param {readonly string[]} head
 * @param {readonly (readonly (Node | string)[])[]} rows
 */
export const table = (head, rows) =>
  element(
    "table",
    {},
    element("thead", {}, element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, name)))),
    element(
      "tbody",
      {},
      ...rows.map((row) =>
        element("tr", {}, ...row.map((value, at) => element("td", { "data-head": head[at] ?? "" }, value))),
      ),
    ),
  );

/** @param {readonly (readonly [string, Node | string] | undefined)[]} pairs */
export const list = (pairs) =>
  element(
    "dl",
    {},
    ...pairs
      .filter((pair) => pair !== undefined)
      .map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );

/** @param {string} text @param {"good" | "bad" | "warn" | "quiet" | "mono"} kind @param {string} [title] */
export const mark = (text, kind, title) => element("span", { class: kind, ...(title && { title }) }, text);
