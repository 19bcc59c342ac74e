"use strict";
// A click on a table heading sorts by it: ascending, descending, original order.
(() => {
  const number = /^[+\-−]?(\d[\d,]*(\.\d+)?|\.\d+|∞)(e[+\-]?\d+)?\s*(%|[±(].*)?$/;
  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const missing = (text) => text === "" || text === "–";

  function value(text) {
    const [sign, size] = [/^[-−]/.test(text) ? -1 : 1, text.replace(/^[+\-−]/, "")];
    return sign * (size.startsWith("∞") ? Infinity : parseFloat(size.replaceAll(",", "")));
  }

  function order(rows, column, direction) {
    const text = (row) => (row.cells[column] ? row.cells[column].textContent.trim() : "");
    const cells = rows.map((row, place) => ({ row, place, text: text(row) }));
    const numbers = cells.every((cell) => missing(cell.text) || number.test(cell.text));
    // Missing values stay at the end, and equal ones keep their order.
    return cells.sort((a, b) => {
      const absent = missing(a.text) - missing(b.text);
      if (absent) return absent;
      const [x, y] = numbers ? [value(a.text), value(b.text)] : [0, words.compare(a.text, b.text)];
      const apart = numbers ? (x < y ? -1 : x > y ? 1 : 0) : y;
      return direction * apart || a.place - b.place;
    });
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const was = head.getAttribute("aria-sort");
        for (const other of heads) other.removeAttribute("aria-sort");
        if (was === "descending") return body.append(...original);
        head.setAttribute("aria-sort", was ? "descending" : "ascending");
        body.append(...order(original, column, was ? -1 : 1).map((cell) => cell.row));
      });
    });
  }

  // A link to a folded part opens it, and so does printing.
  const folded = () => [...document.querySelectorAll("details:not([open])")];
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = folded();
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of opened) one.open = false;
  });
  addEventListener("click", (event) => {
    const link = event.target.closest("nav a");
    const part = link && document.getElementById(link.hash.slice(1));
    const fold = part && part.querySelector(":scope > details");
    if (fold) fold.open = true;
  });
})();
