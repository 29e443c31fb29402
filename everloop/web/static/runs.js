/* The table of runs: rows by the keyboard, choosing, the column picker, pinned columns. The page works without it. */
(function () {
  "use strict";

  var table = document.querySelector("[data-rows]");
  var form = document.getElementById("chosen-form");

  // The picker: its page is loaded into the panel when it is first opened.
  document.querySelectorAll("[data-picker]").forEach(function (menu) {
    var panel = menu.querySelector("[data-panel]"), loaded = false;
    menu.addEventListener("toggle", function () {
      if (!menu.open || loaded) return;
      loaded = true;
      panel.setAttribute("aria-busy", "true");
      fetch(menu.dataset.picker, { headers: { accept: "text/html" }, credentials: "same-origin" }).then(function (answer) {
        if (!answer.ok) throw new Error(String(answer.status));
        return answer.text();
      }).then(function (text) {
        var made = new DOMParser().parseFromString(text, "text/html").getElementById("columns-form");
        panel.textContent = "";
        panel.appendChild(document.importNode(made, true));
        panel.removeAttribute("aria-busy");
        narrowing(panel);
        var first = panel.querySelector("#narrow");
        if (first) first.focus();
      }).catch(function () { loaded = false; panel.removeAttribute("aria-busy"); });
    });
  });
  function narrowing(root) {
    var box = root.querySelector("[data-narrow]");
    if (!box) return;
    box.hidden = false;
    box.querySelector("input").addEventListener("input", function (event) {
      var wanted = event.target.value.trim().toLowerCase();
      root.querySelectorAll("[data-key]").forEach(function (row) { row.hidden = wanted !== "" && row.dataset.key.indexOf(wanted) < 0; });
    });
    box.querySelector("input").addEventListener("keydown", function (event) { if (event.key === "Enter") event.preventDefault(); });
  }
  narrowing(document.getElementById("main"));
  if (!table) return;

  // Pinned columns stay at the left: each begins where those before it end.
  function pin() {
    var left = 0, narrow = window.matchMedia("(max-width: 860px)").matches;
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (head, i) {
      var held = i < 2 || head.classList.contains("pin");
      if (!held) return;
      var stay = !narrow || i < 2;
      Array.prototype.forEach.call(table.rows, function (row) {
        row.cells[i].classList.toggle("stay", stay);
        row.cells[i].style.left = stay ? left + "px" : "";
      });
      left += head.offsetWidth;
    });
  }
  pin();
  window.addEventListener("resize", pin);

  // Choosing: boxes, with Shift from the last one; a box at the top for all; a count that is read aloud.
  var rows = Array.prototype.slice.call(table.tBodies[0].rows), at = -1, last = -1;
  var boxes = rows.map(function (row) { return row.querySelector("input[name=run]"); });
  var all = table.querySelector("[data-all]"), count = form.querySelector("[data-count]");
  all.hidden = false;
  function told() {
    var n = boxes.filter(function (box) { return box.checked; }).length;
    count.textContent = n ? n + (n === 1 ? " run chosen" : " runs chosen") : "No run chosen";
    form.querySelector(".chosen-bar").classList.toggle("some", n > 0);
    all.checked = n === boxes.length;
    all.indeterminate = n > 0 && n < boxes.length;
    form.querySelectorAll(".chosen-bar button").forEach(function (button, i) { button.disabled = i === 0 ? n < 2 : n < 1; });
    rows.forEach(function (row, i) { row.classList.toggle("chosen", boxes[i].checked); });
  }
  all.addEventListener("change", function () { boxes.forEach(function (box) { box.checked = all.checked; }); told(); });
  boxes.forEach(function (box, i) {
    box.addEventListener("click", function (event) {
      if (event.shiftKey && last >= 0) for (var j = Math.min(i, last); j <= Math.max(i, last); j++) boxes[j].checked = box.checked;
      last = i;
      told();
    });
    box.addEventListener("focus", function () { at = i; });
  });
  function go(i) {
    at = Math.max(0, Math.min(rows.length - 1, i));
    boxes[at].focus();
    rows[at].scrollIntoView({ block: "nearest" });
  }
  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    var on = event.target, typing = /^(TEXTAREA|SELECT)$/.test(on.tagName) || (on.tagName === "INPUT" && on.type !== "checkbox");
    if (typing || on.closest("details.drop")) return;
    if (event.key === "j" || (event.key === "ArrowDown" && at >= 0 && on === boxes[at])) { event.preventDefault(); go(at + 1); }
    else if (event.key === "k" || (event.key === "ArrowUp" && at >= 0 && on === boxes[at])) { event.preventDefault(); go(at - 1); }
    else if (event.key === "x" && at >= 0) { event.preventDefault(); boxes[at].checked = !boxes[at].checked; last = at; told(); }
    else if (event.key === "Enter" && at >= 0 && on === boxes[at]) { event.preventDefault(); rows[at].querySelector("th a").click(); }
    else if (event.key === "c") { var button = form.querySelector(".chosen-bar button"); if (!button.disabled) { event.preventDefault(); form.requestSubmit(button); } }
  });
  told();
  window.addEventListener("pageshow", told);
})();
