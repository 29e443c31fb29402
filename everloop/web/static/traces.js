/* Traces: completion of the filter line, narrowing the time on the histogram, choosing rows, following what arrives, keys on a trace's page.
   The pages work without it. */
(function () {
  "use strict";

  // Completion: a list under the line, by the keyboard as ARIA's combobox has it.
  var input = document.querySelector("[data-complete]");
  if (input) {
    var list = document.createElement("ul"), items = [], at = -1, span = [0, 0], asked = 0, timer;
    list.id = "q-list"; list.setAttribute("role", "listbox"); list.setAttribute("aria-label", "What fits here"); list.className = "choices-list"; list.hidden = true;
    input.parentNode.appendChild(list);
    ["role:combobox", "aria-autocomplete:list", "aria-controls:q-list", "aria-expanded:false"].forEach(function (pair) { var p = pair.split(":"); input.setAttribute(p[0], p[1]); });
    var close = function () { list.hidden = true; at = -1; input.setAttribute("aria-expanded", "false"); input.removeAttribute("aria-activedescendant"); };
    var mark = function (i) {
      at = i;
      Array.prototype.forEach.call(list.children, function (one, n) { one.setAttribute("aria-selected", String(n === i)); if (n === i) one.scrollIntoView({ block: "nearest" }); });
      if (i >= 0) input.setAttribute("aria-activedescendant", "q-" + i); else input.removeAttribute("aria-activedescendant");
    };
    var take = function (i) {
      var text = items[i].text, whole = !/[:><=.]$/.test(text);
      input.value = input.value.slice(0, span[0]) + text + (whole ? " " : "") + input.value.slice(span[1]).replace(/^\s+/, whole ? "" : " ");
      var place = span[0] + text.length + (whole ? 1 : 0);
      input.setSelectionRange(place, place);
      close();
      input.focus();
      ask();
    };
    var show = function (found) {
      items = found.items; span = [found.start, found.end];
      list.textContent = "";
      items.forEach(function (one, i) {
        var row = document.createElement("li"), note = document.createElement("span");
        row.id = "q-" + i; row.setAttribute("role", "option"); row.setAttribute("aria-selected", "false"); row.textContent = one.text;
        note.className = "note"; note.textContent = one.note; row.appendChild(note);
        row.addEventListener("mousedown", function (event) { event.preventDefault(); take(i); });
        list.appendChild(row);
      });
      list.hidden = !items.length; at = -1;
      input.setAttribute("aria-expanded", String(items.length > 0));
    };
    var ask = function () {
      clearTimeout(timer);
      timer = setTimeout(function () {
        var mine = ++asked;
        fetch(input.dataset.complete + "?q=" + encodeURIComponent(input.value) + "&at=" + input.selectionStart, { credentials: "same-origin" })
          .then(function (answer) { return answer.ok ? answer.json() : { items: [], start: 0, end: 0 }; })
          .then(function (found) { if (mine === asked && document.activeElement === input) show(found); })
          .catch(close);
      }, 120);
    };
    input.addEventListener("input", ask);
    input.addEventListener("click", ask);
    input.addEventListener("blur", close);
    input.addEventListener("keydown", function (event) {
      if (event.key === "ArrowDown" && list.hidden) { event.preventDefault(); ask(); return; }
      if (list.hidden) return;
      if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); var n = items.length; mark(event.key === "ArrowDown" ? (at + 1) % n : (at + n - (at < 0 ? 0 : 1)) % n); }
      else if ((event.key === "Enter" || event.key === "Tab") && at >= 0) { event.preventDefault(); take(at); }
      else if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); close(); }
    });
  }

  // The histogram: drag over bars to narrow the time.
  var brush = document.querySelector("[data-brush]");
  if (brush) {
    var from = null, shade = document.createElement("div"), moved = false;
    shade.className = "shade"; shade.hidden = true; brush.appendChild(shade);
    var share = function (event) { var box = brush.getBoundingClientRect(); return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)); };
    brush.addEventListener("dragstart", function (event) { event.preventDefault(); });
    brush.addEventListener("pointerdown", function (event) { if (event.button === 0) { from = share(event); moved = false; } });
    document.addEventListener("pointermove", function (event) {
      if (from === null) return;
      var to = share(event);
      moved = moved || Math.abs(to - from) > 0.01;
      shade.hidden = !moved; shade.style.left = Math.min(from, to) * 100 + "%"; shade.style.width = Math.abs(to - from) * 100 + "%";
    });
    document.addEventListener("pointerup", function (event) {
      if (from === null) return;
      var ends = [from, share(event)].sort(function (a, b) { return a - b; }), d = brush.dataset;
      from = null;
      if (!moved) return;
      var length = Number(d.bucket), first = Math.floor(ends[0] * d.count), last = Math.min(Number(d.count), Math.ceil(ends[1] * d.count));
      var iso = function (n) { return new Date((Number(d.since) + n * length) * 1000).toISOString().slice(0, 19) + "Z"; };
      var to = new URL(location.href);
      to.searchParams.delete("range"); to.searchParams.delete("cursor");
      to.searchParams.set("since", iso(first)); to.searchParams.set("until", iso(last));
      location.href = to;
    });
    brush.addEventListener("click", function (event) { if (moved) event.preventDefault(); }, true);
  }

  // Choosing rows: boxes, with Shift from the last one.
  var table = document.querySelector("[data-traces]"), form = document.getElementById("chosen-form");
  if (table && form) {
    var all = table.querySelector("[data-all]"), count = form.querySelector("[data-count]"), whole = form.querySelector("[name=all]"), last = null;
    var boxes = function () { return Array.prototype.slice.call(table.querySelectorAll("input[name=trace]")); };
    var told = function () {
      var every = boxes(), n = every.filter(function (box) { return box.checked; }).length;
      count.textContent = whole.checked ? "All that match are chosen" : n ? n + (n === 1 ? " trace chosen" : " traces chosen") : "Choose traces to act on them";
      form.querySelector(".chosen-bar").classList.toggle("some", n > 0 || whole.checked);
      all.checked = n > 0 && n === every.length; all.indeterminate = n > 0 && n < every.length;
      form.querySelectorAll("button").forEach(function (button) { button.disabled = !n && !whole.checked; });
      every.forEach(function (box) { box.closest("tr").classList.toggle("chosen", box.checked); });
    };
    all.hidden = false;
    all.addEventListener("change", function () { boxes().forEach(function (box) { box.checked = all.checked; }); told(); });
    whole.addEventListener("change", told);
    table.addEventListener("click", function (event) {
      if (event.target.name !== "trace") return;
      var every = boxes(), i = every.indexOf(event.target), j = every.indexOf(last);
      if (event.shiftKey && j >= 0) for (var k = Math.min(i, j); k <= Math.max(i, j); k++) every[k].checked = event.target.checked;
      last = event.target;
      told();
    });
    window.addEventListener("pageshow", told);
    told();
  }

  // Following: the newest rows are asked for every two seconds while the page is seen; what is new comes in at the top.
  var tail = document.querySelector("[data-tail]");
  if (tail && table) {
    var on = false, waiting = null;
    tail.hidden = false;
    var look = function () {
      waiting = null;
      if (!on) return;
      if (document.hidden) { waiting = setTimeout(look, 2000); return; }
      fetch(tail.dataset.tail, { credentials: "same-origin" }).then(function (answer) { return answer.ok ? answer.text() : ""; }).then(function (text) {
        var made = new DOMParser().parseFromString("<table><tbody>" + text + "</tbody></table>", "text/html"), body = table.tBodies[0];
        Array.prototype.slice.call(made.querySelectorAll("tr[data-trace]")).reverse().forEach(function (row) {
          if (body.querySelector('[data-trace="' + row.dataset.trace + '"]')) return;
          row = document.importNode(row, true);
          row.classList.add("fresh");
          body.insertBefore(row, body.firstChild);
        });
        while (body.rows.length > Number(tail.dataset.most)) body.deleteRow(-1);
      }).catch(function () { return null; }).then(function () { if (on) waiting = setTimeout(look, 2000); });
    };
    tail.addEventListener("click", function () {
      on = !on;
      tail.setAttribute("aria-pressed", String(on));
      tail.textContent = on ? "Pause" : "Follow live";
      if (on && !waiting) look();
    });
  }

  // On a trace's page: J goes to the older one of the filter, K to the newer.
  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
    var way = event.key === "j" ? "next" : event.key === "k" ? "prev" : null, link = way && document.querySelector('.beside a[rel="' + way + '"]');
    if (link) link.click();
  });
})();
