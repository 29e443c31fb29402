/* Live charts of runs: each metric is fetched when its chart comes into view, and again while a run is under way. Smoothing, the axes and the
   search are applied here; the address keeps them. */
(function () {
  "use strict";
  if (!window.uPlot) return;

  function token(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
  function shown(value) {
    if (value === null || value === undefined) return "–";
    var size = Math.abs(value);
    if (size >= 1e6 || (size > 0 && size < 1e-3)) return value.toExponential(2);
    return size >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
  }
  function span(seconds) {
    var s = Math.abs(seconds);
    return s >= 5400 ? Number((seconds / 3600).toPrecision(3)) + " h" : s >= 90 ? Number((seconds / 60).toPrecision(3)) + " min" : Number(seconds.toPrecision(3)) + " s";
  }
  // An exponential mean that begins without bias (each value's weight falls by `weight` a point).
  function smooth(values, weight) {
    if (!weight) return values;
    var held = 0, mass = 0;
    return values.map(function (v) {
      if (v === null) return null;
      held = held * weight + (1 - weight) * v;
      mass = mass * weight + (1 - weight);
      return held / mass;
    });
  }

  document.querySelectorAll("[data-live]").forEach(function (root) {
    var spec = JSON.parse(root.dataset.live), form = root.querySelector("[data-controls]"), follow = root.querySelector("[data-follow]");
    var figures = Array.prototype.slice.call(root.querySelectorAll("[data-metric]"));
    var state = root.querySelector("[data-state]"), running = spec.running;
    var sync = uPlot.sync("runs-" + spec.runs[0].id);
    function set() {
      return { x: form.elements.x.value, smooth: Number(form.elements.smooth.value), log: form.elements.log.checked, find: form.elements.find.value.trim().toLowerCase() };
    }
    function address(figure) {
      var query = new URLSearchParams({ key: figure.dataset.metric, points: "600" });
      spec.runs.forEach(function (run) { query.append("run", run.id); });
      if (figure._version) query.set("known", figure._version);
      return "/ui/runs/series?" + query;
    }
    function load(figure) {
      if (figure._loading) return Promise.resolve();
      figure._loading = true;
      return fetch(address(figure), { credentials: "same-origin" }).then(function (answer) {
        if (answer.status === 304) return null;
        if (!answer.ok) throw new Error("The server answered " + answer.status + ".");
        return answer.json();
      }).then(function (body) {
        figure._loading = false;
        if (!body) return;
        figure._version = body.version;
        figure._data = body.series;
        running = body.running;
        draw(figure);
      }).catch(function (error) {
        figure._loading = false;
        if (!figure._data) figure.querySelector(".plot").textContent = "The chart could not be loaded. " + error.message;
      });
    }
    function table(one, run, options) {
      var x = options.x === "step" ? one.step : one.at.map(function (at) { return options.x === "relative" ? at - run.started : at; });
      var order = x.map(function (_, i) { return i; });
      if (options.x !== "step") order.sort(function (a, b) { return x[a] - x[b]; });
      var kept = order.filter(function (i, n) { return n === order.length - 1 || x[i] !== x[order[n + 1]]; });
      var clean = function (v) { return v === null || (options.log && v <= 0) ? null : v; };
      var pick = function (values) { return kept.map(function (i) { return clean(values[i]); }); };
      var lines = [kept.map(function (i) { return x[i]; }), smooth(pick(one.value), options.smooth)];
      return options.smooth ? lines : lines.concat([pick(one.min), pick(one.max)]);
    }
    function draw(figure) {
      var box = figure.querySelector(".plot"), options = set(), soft = token("--soft"), line = token("--line");
      var tables = [], series = [{ label: options.x === "step" ? "Step" : "Time", value: options.x === "time" ? "{YYYY}-{MM}-{DD} {HH}:{mm}:{ss}" : options.x === "relative" ? function (u, v) { return v === null ? "–" : span(v); } : function (u, v) { return v === null ? "–" : String(v); } }], bands = [];
      figure._data.forEach(function (one, i) {
        if (!one.step.length) return;
        var run = spec.runs[i], colour = token("--chart-" + (i % 8 + 1)), at = series.length, many = one.step.length > 60;
        tables.push(table(one, run, options));
        series.push({ label: spec.runs.length > 1 ? run.name : figure.dataset.metric, stroke: colour, width: 1.8, dash: i >= 8 ? [7, 4] : undefined, spanGaps: true, points: { show: !many, size: 4, fill: colour }, value: function (u, v) { return shown(v); } });
        if (!options.smooth) {
          ["min", "max"].forEach(function (name) { series.push({ label: run.name + " " + name, stroke: colour + "00", width: 0, spanGaps: true, points: { show: false }, value: function (u, v) { return shown(v); }, class: "band" }); });
          bands.push({ series: [at + 2, at + 1], fill: colour + "30" });
        }
      });
      if (figure._chart) { figure._chart.destroy(); figure._chart = null; }
      box.textContent = "";
      if (!tables.length) { box.textContent = "No point yet."; return; }
      var data = uPlot.join(tables), axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px system-ui, sans-serif" };
      figure._chart = new uPlot({
        width: Math.max(220, box.clientWidth), height: 210, tzDate: function (ts) { return uPlot.tzDate(new Date(ts * 1e3), "Etc/UTC"); },
        cursor: { y: false, sync: { key: sync.key } }, legend: { live: true }, bands: bands,
        scales: { x: { time: options.x === "time" }, y: { distr: options.log ? 3 : 1 } },
        axes: [Object.assign(options.x === "time" ? { values: window.everloop.times, size: 44, space: 64 } : options.x === "relative" ? { values: function (u, ticks) { return ticks.map(span); } } : {}, axis), Object.assign({ size: 66, values: function (u, ticks) { return ticks.map(function (v) { return v === null ? "" : shown(v); }); } }, axis)],
        series: series
      }, data, box);
      box.querySelectorAll(".u-legend .band").forEach(function (row) { row.hidden = true; });
    }
    function again() { figures.forEach(function (figure) { if (figure._data) draw(figure); }); }
    function find() {
      var wanted = set().find, left = 0;
      figures.forEach(function (figure) { var off = wanted !== "" && figure.dataset.metric.toLowerCase().indexOf(wanted) < 0; figure.hidden = off; if (!off) left++; });
      root.querySelector("[data-none]").hidden = left > 0;
    }
    function remember() {
      var url = new URL(location.href), options = set();
      [["x", options.x === "step" ? "" : options.x], ["smooth", options.smooth ? String(options.smooth) : ""], ["log", options.log ? "1" : ""], ["find", options.find]].forEach(function (part) {
        if (part[1]) url.searchParams.set(part[0], part[1]); else url.searchParams.delete(part[0]);
      });
      history.replaceState(null, "", url);
    }
    var waiting;
    form.addEventListener("input", function (event) {
      if (event.target === follow) return;
      root.querySelector("[data-smooth]").textContent = form.elements.smooth.value;
      if (event.target.name === "find") find();
      clearTimeout(waiting);
      waiting = setTimeout(function () { if (event.target.name !== "find") again(); remember(); }, 60);
    });
    form.addEventListener("submit", function (event) { event.preventDefault(); remember(); });

    var seen = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) { entry.target._near = entry.isIntersecting; if (entry.isIntersecting && !entry.target._data) load(entry.target); });
    }, { rootMargin: "200px" });
    figures.forEach(function (figure) { seen.observe(figure); });
    find();

    // While a run is under way its charts in view are asked for again; nothing comes back when there is no new point.
    function tick() {
      if (!running) { if (state) state.textContent = "all ended"; return; }
      setTimeout(function () {
        var near = document.hidden || !follow || !follow.checked ? [] : figures.filter(function (figure) { return figure._near && !figure.hidden && figure._data; });
        near.reduce(function (before, figure) { return before.then(function () { return load(figure); }); }, Promise.resolve()).then(tick);
      }, 3000);
    }
    if (running) tick();

    var resizing;
    window.addEventListener("resize", function () {
      clearTimeout(resizing);
      resizing = setTimeout(function () { figures.forEach(function (figure) { if (figure._chart) figure._chart.setSize({ width: Math.max(220, figure.querySelector(".plot").clientWidth), height: 210 }); }); }, 120);
    });
    document.addEventListener("everloop:theme", again);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  });
})();
