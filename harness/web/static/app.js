"use strict";
// The page as it came from the server is whole. This keeps it up to date, and sends the actions.
(() => {
  const { base, topic, page } = document.body.dataset;
  const byId = (id) => document.getElementById(id);
  let token = document.querySelector("meta[name=csrf]").content;

  // Changes an element into a fresh one and keeps what is the same: focus, selection and scrolling stay.
  function morph(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    const other = old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.id !== fresh.id;
    // A button that means something else is another button: a click must never hit one that has just changed.
    if (other || (old.nodeName === "BUTTON" && old.value !== fresh.value)) return void old.replaceWith(fresh);
    if (old.nodeType !== Node.ELEMENT_NODE) return void (old.data = fresh.data);
    if (old.nodeName === "INPUT") return; // what the user types stays
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && !(name === "open" || name === "hidden")) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    children(old, fresh);
  }

  function children(old, fresh) {
    const before = [...old.childNodes];
    const after = [...fresh.childNodes];
    after.forEach((node, index) => (before[index] ? morph(before[index], node) : old.append(node)));
    before.slice(after.length).forEach((node) => node.remove());
  }

  function parsed(html) {
    const template = document.createElement("template");
    template.innerHTML = html; // escaped by the server; the policy of the page lets no script in it run
    return template.content;
  }

  function change({ parts, order }) {
    const list = byId("jobs");
    const place = document.activeElement.closest("form, li, article");
    for (const [key, html] of Object.entries(parts)) {
      const found = byId(key);
      if (!key.startsWith("j-")) {
        if (found) children(found, parsed(html));
      } else if (list) {
        const row = parsed(html).firstElementChild;
        if (found) morph(found, row);
        else list.append(row);
      }
    }
    if (order && list) arrange(list, order);
    addresses();
    filter();
    // A button that a change took away must not take the keyboard's place with it.
    if (place && place.isConnected && document.activeElement === document.body) {
      const next = place.querySelector("button, a");
      if (next) next.focus({ preventScroll: true });
    }
  }

  function arrange(list, order) {
    const wanted = new Set(order);
    for (const row of [...list.children]) if (!wanted.has(row.id)) row.remove();
    order.forEach((key, index) => {
      const row = byId(key);
      if (row && list.children[index] !== row) list.insertBefore(row, list.children[index] || null);
    });
    byId("empty").hidden = order.length > 0;
  }

  function addresses() {
    for (const link of document.querySelectorAll("a[data-job]")) {
      link.href = `${base}/job?id=${encodeURIComponent(link.dataset.job)}`;
    }
  }

  function filter() {
    const field = byId("filter");
    if (!field) return;
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...byId("jobs").children];
    for (const row of rows) {
      const text = row.dataset.text.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    byId("unmatched").hidden = !rows.length || rows.some((row) => !row.hidden);
  }

  function say(text, good) {
    const line = document.createElement("p");
    line.textContent = text;
    line.className = good ? "good" : "bad";
    byId("said").replaceChildren(line);
    clearTimeout(say.timer);
    say.timer = setTimeout(() => line.remove(), good ? 6000 : 15000);
  }

  function alive(state, text) {
    byId("live").className = `live ${state}`;
    if (byId("live-text").textContent !== text) byId("live-text").textContent = text;
  }

  function connect() {
    const source = new EventSource(`${base}/events${topic ? `?job=${encodeURIComponent(topic)}` : ""}`);
    source.addEventListener("hello", (event) => {
      token = JSON.parse(event.data).token;
      alive("on", "live");
    });
    source.addEventListener("change", (event) => {
      alive("on", "live");
      if (page !== "enqueue") change(JSON.parse(event.data));
    });
    source.addEventListener("error", () => {
      alive("off", "no answer from the server, trying again");
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000); // it refused: ask again
    });
    addEventListener("pagehide", () => source.close());
  }

  function sure(question, label) {
    const dialog = byId("sure");
    byId("sure-text").textContent = question;
    byId("sure-yes").textContent = `Yes, ${label.toLowerCase()}`;
    dialog.returnValue = "no";
    dialog.showModal();
    return new Promise((done) => {
      dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true });
    });
  }

  async function send(form, button) {
    const fields = new URLSearchParams(new FormData(form));
    let path = form.getAttribute("action");
    if (form.dataset.act !== undefined) {
      fields.set("job", form.dataset.act);
      path = `${base}/act`;
    } else if (form.dataset.stage !== undefined) {
      fields.set("lane", form.dataset.stage);
      path = `${base}/stage`;
    }
    if (button) fields.set(button.name || "action", button.value);
    fields.set("token", token);
    // Not disabled: that would take the focus away.
    if (button) button.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(path, { method: "POST", body: fields, redirect: "error" });
      const { ok, text, fields: wrong } = (answer.headers.get("content-type") || "").includes("json")
        ? await answer.json()
        : { ok: answer.ok, text: await answer.text() };
      for (const place of form.querySelectorAll("[data-error]")) {
        place.textContent = (wrong && wrong[place.dataset.error]) || "";
        const input = byId(place.dataset.error);
        if (input) input.setAttribute("aria-invalid", String(Boolean(place.textContent)));
      }
      say(text, ok);
    } catch {
      say("no answer from the server; the result of the action is unknown; look at the job and try again", false);
    } finally {
      if (button) button.removeAttribute("aria-busy");
    }
  }

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (form.method !== "post") return;
    event.preventDefault();
    const button = event.submitter;
    if (button && button.hasAttribute("aria-busy")) return;
    if (button && button.dataset.sure && !(await sure(button.dataset.sure, button.textContent))) return;
    await send(form, button);
  });
  addEventListener("input", (event) => event.target.id === "filter" && filter());
  addresses();
  connect();
})();
