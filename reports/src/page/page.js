"use strict";
(() => {
  // Charts of one view at a time; without this script all are shown, one below the other.
  const chooser = document.getElementById("view");
  if (chooser) {
    const choose = () => {
      for (const view of document.querySelectorAll(".view")) view.hidden = view.id !== "view-" + chooser.value;
    };
    chooser.addEventListener("change", choose);
    choose();
  }

  // Tips: the titles of the spots, shown at once and on touch, too.
  const tip = document.getElementById("tip");
  for (const svg of document.querySelectorAll("svg")) {
    const title = svg.querySelector(":scope > title");
    svg.removeAttribute("aria-labelledby");
    svg.setAttribute("aria-label", title.textContent + ". " + svg.querySelector(":scope > desc").textContent);
    title.remove();
    for (const spot of svg.querySelectorAll(".spot")) {
      spot.dataset.tip = spot.textContent;
      spot.textContent = "";
    }
  }
  const show = (event) => {
    const text = event.target.dataset && event.target.dataset.tip;
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    const box = tip.getBoundingClientRect();
    const left = Math.min(event.clientX + 12, innerWidth - box.width - 8);
    const above = event.clientY - box.height - 12;
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = (above > 4 ? above : event.clientY + 18) + "px";
  };
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  // The table: sorting by a head, filtering by words and by lists.
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const search = document.getElementById("search");
  const lists = [...document.querySelectorAll(".filters select")];
  const key = (row, column) => row.cells[column].dataset.key ?? row.cells[column].textContent;
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const text = [...row.cells].map((cell) => cell.textContent.toLowerCase()).join(" ");
      const fits = words.every((word) => text.includes(word))
        && lists.every((list) => !list.value || row.cells[list.dataset.column].textContent === list.value);
      row.hidden = !fits;
      if (fits) count += 1;
    }
    document.getElementById("shown").textContent = count + " of " + rows.length + (rows.length === 1 ? " point" : " points");
  };
  const sort = (button) => {
    const head = button.parentElement;
    const descending = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const column = Number(button.dataset.column);
    const numeric = "numeric" in button.dataset;
    const compare = (a, b) => {
      const [x, y] = [key(a, column), key(b, column)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = numeric ? x - y : x.localeCompare(y, "en");
      return descending ? -order : order;
    };
    body.append(...rows.sort(compare));
  };
  for (const button of table.tHead.querySelectorAll("button")) button.addEventListener("click", () => sort(button));
  search.addEventListener("input", filter);
  for (const list of lists) list.addEventListener("change", filter);
  document.getElementById("clear").addEventListener("click", () => {
    search.value = "";
    for (const list of lists) list.value = "";
    filter();
  });
  document.querySelector(".filters").hidden = false;
  filter();
})();
