// What the tests ask of the status page; evaluated in it.
globalThis.probe = (() => {
  const byId = (id) => document.getElementById(id);
  const part = (card, name) => card.querySelector(`[data-is=${name}]`).innerText;
  const cells = (row) => [...row.children].map((cell) => cell.innerText.trim());
  const table = (id) => Object.fromEntries([...byId(id).rows].map((row) => [cells(row)[0], cells(row).slice(1)]));
  const tiles = () => Object.fromEntries(
    [...document.querySelectorAll("#tiles > div")].map((box) => [box.children[0].innerText, box.children[1].innerText]));

  const shown = () => ({
    verdict: byId("verdict-text").innerText,
    kind: byId("verdict").dataset.kind,
    more: byId("verdict-more").innerText,
    connection: byId("connection").innerText,
    tiles: tiles(),
    upstreams: Object.fromEntries([...document.querySelectorAll("#upstreams > li")].map((card) =>
      [part(card, "name"), [part(card, "state"), part(card, "words"), part(card, "running")]])),
    classes: table("classes"),
    tenants: table("tenants"),
    outcomes: [...document.querySelectorAll("#outcomes li")].map((one) => one.innerText.replace("\n", "")).sort(),
    charts: ["seats", "itl", "ttft"].map((id) => byId(id).getAttribute("aria-label")),
  });

  const live = () => byId("connection").innerText === "live" && "Throughput" in tiles();
  const moving = () => live() && Number(tiles().Throughput.split(" ")[0]) > 0;
  const fits = () => document.documentElement.scrollWidth <= innerWidth;

  const parse = (color) => color.match(/[\d.]+/g).map(Number);
  const linear = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const color = parse(getComputedStyle(one).backgroundColor);
      if (color.length < 4 || color[3] > 0.99) return color;
    }
    return [255, 255, 255];
  };

  // Texts with less contrast than WCAG 2.2 AA asks of small ones (4.5 : 1).
  const poor = () => [...document.querySelectorAll("body *")].flatMap((node) => {
    const own = [...node.childNodes].some((one) => one.nodeType === Node.TEXT_NODE && one.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest("template, noscript, .skip")) return [];
    const [high, low] = [light(parse(getComputedStyle(node).color)), light(ground(node))].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    return ratio < 4.5 ? [`${node.innerText}: ${ratio.toFixed(2)}`] : [];
  });

  const focused = () => {
    const node = document.activeElement;
    return node.id || node.className || node.innerText;
  };

  return { shown, live, moving, fits, poor, focused };
})();
