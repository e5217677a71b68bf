"use strict";
(() => {
  const table = document.querySelector("#runs table"), tools = document.querySelector("#runs .tools");
  if (!table || !tools) return;
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const input = tools.querySelector("input"), shown = tools.querySelector("output");
  const units = { ms: 1e-3, s: 1, B: 1, "µs": 1e-6, ns: 1e-9 };
  // A cell as a number in seconds or bytes, as a text if it is no number, or undefined for a dash.
  const value = cell => {
    const text = cell.textContent.trim(), found = /^([\d.,]+)(?: (ms|s|B|µs|ns))?$/.exec(text);
    if (found) return Number(found[1].replaceAll(",", "")) * (units[found[2]] ?? 1);
    return text === "–" ? undefined : text;
  };
  const compare = (one, other) => {
    if (one === undefined || other === undefined) return (one === undefined) - (other === undefined);
    if (typeof one === "number" && typeof other === "number") return one - other;
    return String(one).localeCompare(String(other), "en", { numeric: true });
  };
  let texts = null;
  const filter = () => {
    texts ??= rows.map(row => row.textContent.toLowerCase());
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, index) => {
      row.hidden = !words.every(word => texts[index].includes(word));
      count += !row.hidden;
    });
    shown.textContent = `${count} of ${rows.length} runs`;
  };
  const sort = head => {
    const down = head.getAttribute("aria-sort") === "ascending", index = heads.indexOf(head);
    heads.forEach(each => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = rows.map(row => [value(row.cells[index]), row]);
    keyed.sort(([one], [other]) => (down ? -1 : 1) * compare(one, other));
    body.append(...keyed.map(([, row]) => row));
  };
  heads.forEach(head => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(head));
    head.replaceChildren(button);
  });
  input.addEventListener("input", filter);
  tools.hidden = false;
  filter();
})();
