/* What pages do beyond links and forms: keys, the theme, menus that close, and charts. Everything works without it. */
(function () {
  "use strict";

  // `/` goes to the search; Escape closes an open menu and gives the focus back to it.
  document.addEventListener("keydown", function (event) {
    var typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || event.target.isContentEditable;
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      var find = document.getElementById("find");
      if (find) { event.preventDefault(); find.focus(); find.select(); }
    }
    if (event.key === "Escape") {
      document.querySelectorAll("details.drop[open]").forEach(function (menu) {
        menu.open = false;
        menu.querySelector("summary").focus();
      });
    }
  });
  document.addEventListener("click", function (event) {
    document.querySelectorAll("details.drop[open]").forEach(function (menu) { if (!menu.contains(event.target)) menu.open = false; });
  });
  document.addEventListener("focusin", function (event) {
    document.querySelectorAll("details.drop[open]").forEach(function (menu) { if (!menu.contains(event.target)) menu.open = false; });
  });

  // The theme: the system's, until one is chosen; the choice is a cookie, so the server draws the page in it.
  function dark() {
    var chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
  }
  document.querySelectorAll("[data-theme-toggle]").forEach(function (button) {
    button.hidden = false;
    button.addEventListener("click", function () {
      var theme = dark() ? "light" : "dark";
      document.documentElement.dataset.theme = theme;
      document.cookie = "everloop_theme=" + theme + "; path=/; max-age=31536000; samesite=lax";
      draw(document);
      document.dispatchEvent(new Event("everloop:theme"));
    });
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function () { draw(document); });

  // Charts: <div data-chart='{"x": [...], "time": true, "series": [{"label", "values", "unit"?, "dash"?, "bars"?}], ...}'>
  function token(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
  function shown(value, unit) {
    if (value === null || value === undefined) return "–";
    var size = Math.abs(value), text = size >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
    return unit === "$" ? "$" + text : unit ? text + " " + unit : text;
  }
  // Ticks of a time axis: a date at each day, hours and minutes within it; never a month before a day.
  function times(u, ticks, index, space, step) {
    var day = null;
    return ticks.map(function (at) {
      var iso = new Date(at * 1000).toISOString(), date = iso.slice(0, 10), first = date !== day;
      day = date;
      if (step >= 86400) return date.slice(5) + (ticks[0] === at ? "\n" + date.slice(0, 4) : "");
      return iso.slice(11, step < 60 ? 19 : 16) + (first ? "\n" + date : "");
    });
  }
  window.everloop = { times: times };  // for the live charts
  function plot(box) {
    var spec;
    try { spec = JSON.parse(box.dataset.chart); } catch (error) { return; }
    if (!spec.x.length) return;
    var colours = [token("--chart-1"), token("--chart-2"), token("--chart-3"), token("--chart-4")];
    var soft = token("--soft"), line = token("--line");
    var axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px system-ui, sans-serif" };
    var series = [{ label: spec.xlabel || (spec.time ? "Time" : "x"), value: spec.time ? "{YYYY}-{MM}-{DD} {HH}:{mm}" : function (u, v) { return shown(v, ""); } }];
    spec.series.forEach(function (one, i) {
      var colour = one.tone ? token("--" + one.tone) : colours[i % colours.length];
      var made = { label: one.label, stroke: colour, width: 2, dash: one.dash ? [6, 4] : undefined, spanGaps: !!(one.dash || one.joined), points: { show: !one.bars && !one.dash && one.values.filter(function (v) { return v !== null; }).length < 60, size: 5, fill: colour }, value: function (u, v) { return shown(v, one.unit || ""); } };
      if (one.bars) { made.paths = uPlot.paths.bars({ size: [0.7, 40] }); made.fill = colour + "99"; made.width = 1; }
      series.push(made);
    });
    var height = spec.height || 190;
    box.textContent = "";
    var chart = new uPlot({
      width: Math.max(220, box.clientWidth), height: height, tzDate: function (ts) { return uPlot.tzDate(new Date(ts * 1e3), "Etc/UTC"); },
      cursor: { y: false, drag: { x: false, y: false } }, legend: { live: true },
      scales: { x: { time: !!spec.time, range: spec.xrange ? function () { return spec.xrange; } : undefined }, y: { range: spec.yrange ? function () { return spec.yrange; } : function (u, low, high) {
        if (low === null) return [0, 1];
        var from = spec.zero === false ? low : Math.min(0, low), room = (high - from || Math.abs(high) || 1) * 0.08;
        return [spec.zero === false ? from - room : from, high + room];
      } } },
      axes: [Object.assign({}, axis, spec.time ? { values: times, size: 44, space: 64 } : {}), Object.assign({ size: function (u, ticks) { return Math.max(62, 12 + 7 * Math.max.apply(null, (ticks || [""]).map(function (t) { return t.length; }))); }, values: function (u, ticks) { return ticks.map(function (v) { return shown(v, spec.unit || ""); }); } }, axis)],
      series: series
    }, [spec.x].concat(spec.series.map(function (one) { return one.values; })), box);
    box._chart = chart;
  }
  function draw(root) {
    if (!window.uPlot) return;
    root.querySelectorAll("[data-chart]").forEach(function (box) {
      if (box._chart) box._chart.destroy();
      plot(box);
    });
  }
  var resizing;
  window.addEventListener("resize", function () {
    clearTimeout(resizing);
    resizing = setTimeout(function () {
      document.querySelectorAll("[data-chart]").forEach(function (box) { if (box._chart) box._chart.setSize({ width: Math.max(220, box.clientWidth), height: box._chart.height }); });
    }, 120);
  });
  // On a narrow page the navigation is one line: begin where one is.
  var current = document.querySelector(".side nav [aria-current]"), nav = document.querySelector(".side nav");
  if (current && nav.scrollWidth > nav.clientWidth) nav.scrollLeft = current.offsetLeft - nav.clientWidth / 2 + current.offsetWidth / 2;

  // A graph that is wider than its place begins where its subject is; a shade and a button at each side say that there is more.
  document.querySelectorAll(".graph-box").forEach(function (box) {
    var here = box.querySelector(".node.here"), frame = document.createElement("div");
    frame.className = "graph-frame";
    box.parentNode.insertBefore(frame, box);
    frame.appendChild(box);
    var buttons = [["left", "◂", -1], ["right", "▸", 1]].map(function (side) {
      var button = document.createElement("button");
      button.type = "button"; button.className = "more " + side[0]; button.textContent = side[1]; button.hidden = true;
      button.setAttribute("aria-label", "More of the graph to the " + side[0]);
      button.addEventListener("click", function () { box.scrollBy({ left: side[2] * box.clientWidth * 0.7, behavior: "smooth" }); });
      frame.appendChild(button);
      return button;
    });
    function hint() {
      buttons[0].hidden = box.scrollLeft < 4;
      buttons[1].hidden = box.scrollLeft + box.clientWidth > box.scrollWidth - 4;
    }
    if (here && box.scrollWidth > box.clientWidth) {
      var middle = here.getBoundingClientRect().left - box.getBoundingClientRect().left - box.clientWidth / 2 + here.getBoundingClientRect().width / 2;
      box.scrollLeft += middle;
    }
    box.addEventListener("scroll", hint);
    window.addEventListener("resize", hint);
    hint();
  });
  document.addEventListener("htmx:afterSettle", function (event) { draw(event.target.parentElement || document); });
  draw(document);
})();
