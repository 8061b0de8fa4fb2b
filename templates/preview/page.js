"use strict";
// Follows the editor: when a file was saved, the parts of the page that differ are replaced; and copies to the clipboard.

const told = document.getElementById("told");
const sources = new Map(); // address → the article's HTML, fetched ahead: a clipboard wants it within the click
let known = partsOf(document);
let asking = Promise.resolve();

function partsOf(page) {
  return new Map([...page.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part.outerHTML]));
}

function placesOf(part) {
  return [...part.querySelectorAll("iframe, .strip, .chat, pre, .group, .raw")];
}

// A frame without scripts still tells its place; a reload would begin at its top.
function placeOf(element) {
  const view = element.tagName === "IFRAME" ? element.contentWindow : null;
  return view ? [view.scrollX, view.scrollY] : [element.scrollLeft, element.scrollTop];
}

function putBack(element, place) {
  if (element.tagName !== "IFRAME") element.scrollTo(...place);
  else element.addEventListener("load", () => element.contentWindow.scrollTo(...place), { once: true });
}

function replacePart(part, fresh) {
  const focus = part.contains(document.activeElement) ? document.activeElement.id : "";
  const places = placesOf(part).map(placeOf);
  const next = document.importNode(fresh, true);
  part.replaceWith(next);
  placesOf(next).forEach((element, index) => { if (places[index]) putBack(element, places[index]); });
  if (focus) document.getElementById(focus)?.focus();
}

async function follow() {
  const answer = await fetch(location.href, { cache: "no-store" });
  if (!answer.ok) throw new Error(answer.statusText);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = partsOf(page);
  if ([...fresh.keys()].join() !== [...known.keys()].join()) {
    document.getElementById("board").replaceWith(document.importNode(page.getElementById("board"), true));
    replacePart(document.querySelector("[data-part=head]"), page.querySelector("[data-part=head]"));
  } else {
    for (const [name, html] of fresh) {
      if (html === known.get(name)) continue;
      const here = `[data-part="${CSS.escape(name)}"]`;
      replacePart(document.querySelector(here), page.querySelector(here));
    }
  }
  known = fresh;
  document.title = page.title;
  document.documentElement.dataset.stamp = page.documentElement.dataset.stamp;
  prepare();
}

function status(name, words) {
  const line = document.getElementById("live");
  line.className = name;
  line.querySelector("b").textContent = words;
}

// One after the other: the answer to an older question must not come last.
function followNow() {
  asking = asking.then(follow).then(() => status("on", "live"), () => status("off", "the server is away"));
}

function listen() {
  const events = new EventSource("/events");
  events.addEventListener("open", () => status("on", "live"));
  events.addEventListener("error", () => status("off", "the server is away"));
  events.addEventListener("changed", (event) => {
    if (event.data === document.documentElement.dataset.stamp) return;
    followNow();
  });
}

// What the page needs ahead of a click.
function prepare() {
  for (const button of document.querySelectorAll("[data-article]")) {
    const address = button.dataset.article;
    if (!sources.has(address)) fetch(address).then((answer) => answer.text()).then((html) => sources.set(address, html));
  }
}

// The old way works without the newer API, and on pages that may not use it; it sets both forms as well.
function copyTheOldWay(forms) {
  let done = false;
  const put = (event) => {
    for (const [type, text] of Object.entries(forms)) event.clipboardData.setData(type, text);
    event.preventDefault();
    done = true;
  };
  document.addEventListener("copy", put, { once: true });
  document.execCommand("copy");
  document.removeEventListener("copy", put);
  return done;
}

async function copy(forms) {
  try {
    const blobs = Object.entries(forms).map(([type, text]) => [type, new Blob([text], { type })]);
    await navigator.clipboard.write([new ClipboardItem(Object.fromEntries(blobs))]);
    return true;
  } catch {
    return copyTheOldWay(forms);
  }
}

function wordsOf(html) {
  const page = new DOMParser().parseFromString(html, "text/html");
  for (const block of page.querySelectorAll("p, h1, h2, h3, h4, li, section, blockquote, tr, br")) block.append("\n");
  return page.body.textContent.replace(/\n{3,}/g, "\n\n").trim();
}

function formsOf(button) {
  if (button.dataset.copy) {
    const source = document.querySelector(button.dataset.copy);
    return { "text/plain": source.value ?? source.textContent };
  }
  const html = sources.get(button.dataset.article);
  return html === undefined ? null : { "text/html": html, "text/plain": wordsOf(html) };
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy], [data-article]");
  const forms = button && formsOf(button);
  if (!button) return;
  const words = forms && (await copy(forms)) ? "Copied" : "Not copied: select the text and copy it by hand";
  told.textContent = words;
  told.className = "shown";
  setTimeout(() => { told.className = ""; }, 2500);
});

// The arrow keys go from post to post in a closed list: the focus must stay there, so the page is not loaded anew.
document.addEventListener("change", (event) => {
  if (event.target.id !== "post") return;
  history.pushState(null, "", `/?${new URLSearchParams({ post: event.target.value })}`);
  followNow();
});
window.addEventListener("popstate", followNow);

prepare();
listen();
