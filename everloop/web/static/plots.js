/* Params and metrics of many runs: parallel coordinates and a scatter plot, with ranges by drag or by fields. Lines are drawn on a canvas. */
(function () {
  "use strict";
  var root = document.querySelector("[data-plots]");
  if (!root) return;
  var spec = JSON.parse(root.dataset.plots), axes = spec.axes, runs = spec.ids.map(function (id, i) { return { id: id, name: spec.names[i] }; }), ROWS = 50;
  var box = root.querySelector("[data-parallel]"), fields = root.querySelector("[data-ranges]"), scatter = root.querySelector("[data-scatter]");
  var NS = "http://www.w3.org/2000/svg", PAD = { top: 40, bottom: 22, side: 60 }, HEIGHT = 340;
  var ranges = axes.map(function () { return null; }), places, width, ratio = window.devicePixelRatio || 1;

  function token(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
  function shown(v) { return v === null ? "–" : Math.abs(v) >= 1e5 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential(2) : String(Number(v.toPrecision(4))); }
  function make(name, attributes, text) {
    var made = document.createElementNS(NS, name);
    Object.keys(attributes).forEach(function (key) { made.setAttribute(key, attributes[key]); });
    if (text !== undefined) made.textContent = text;
    return made;
  }
  axes.forEach(function (axis) {
    if (axis.kind === "category") { axis.low = 0; axis.high = Math.max(1, axis.names.length - 1); axis.log = false; return; }
    var there = axis.values.filter(function (v) { return v !== null; });
    axis.low = Math.min.apply(null, there); axis.high = Math.max.apply(null, there);
    if (axis.low === axis.high) { axis.low -= 0.5; axis.high += 0.5; axis.log = false; }
  });
  function part(axis, v) { return axis.log ? (Math.log(v) - Math.log(axis.low)) / (Math.log(axis.high) - Math.log(axis.low)) : (v - axis.low) / (axis.high - axis.low); }
  function back(axis, share) { return axis.log ? Math.exp(Math.log(axis.low) + share * (Math.log(axis.high) - Math.log(axis.low))) : axis.low + share * (axis.high - axis.low); }
  function within(i) {
    return ranges.every(function (range, a) { if (!range) return true; var v = axes[a].values[i]; return v !== null && v >= range[0] && v <= range[1]; });
  }
  // Colour: from one end of the scale to the other, both readable on the page's ground.
  function mix(share) {
    var from = rgb(token("--chart-3")), to = rgb(token("--chart-2"));
    return "rgb(" + from.map(function (c, i) { return Math.round(c + (to[i] - c) * share); }).join(" ") + " / ";
  }
  function rgb(hex) { return [1, 3, 5].map(function (i) { return parseInt(hex.slice(i, i + 2), 16); }); }
  function colour(i, alpha) {
    var axis = spec.colour === null ? null : axes[spec.colour], v = axis ? axis.values[i] : null;
    if (!axis) return mix(0) + alpha + ")";
    return v === null ? "rgb(128 128 128 / " + alpha * 0.6 + ")" : mix(part(axis, v)) + alpha + ")";
  }
  if (spec.colour !== null) {
    var scale = root.querySelector("[data-scale]"), of = axes[spec.colour];
    var paint = function () { scale.style.background = "linear-gradient(to right, " + mix(0) + "1), " + mix(1) + "1))"; };
    paint();
    document.addEventListener("everloop:theme", paint);
    root.querySelector("[data-low]").textContent = of.kind === "category" ? of.names[0] : shown(of.low);
    root.querySelector("[data-high]").textContent = of.kind === "category" ? of.names[of.names.length - 1] : shown(of.high);
  }

  function layout() {
    width = Math.max(box.clientWidth, axes.length * 112);
    places = axes.map(function (_, a) { return axes.length === 1 ? width / 2 : PAD.side + a * (width - 2 * PAD.side) / (axes.length - 1); });
  }
  function y(axis, v) { return HEIGHT - PAD.bottom - part(axis, v) * (HEIGHT - PAD.top - PAD.bottom); }
  var canvas = document.createElement("canvas"), over = make("svg", { "aria-hidden": "true" });
  box.appendChild(canvas); box.appendChild(over);
  function frame() {
    layout();
    canvas.width = width * ratio; canvas.height = HEIGHT * ratio;
    canvas.style.width = width + "px"; canvas.style.height = HEIGHT + "px";
    over.setAttribute("width", width); over.setAttribute("height", HEIGHT);
    over.textContent = "";
    axes.forEach(function (axis, a) {
      var x = places[a], name = axis.label.length > 18 ? axis.label.slice(0, 17) + "…" : axis.label;
      over.appendChild(make("line", { class: "axis-line", x1: x, x2: x, y1: PAD.top, y2: HEIGHT - PAD.bottom }));
      over.appendChild(make("text", { class: "title", x: x, y: 15, "text-anchor": "middle" }, name)).appendChild(make("title", {}, axis.name));
      var ticks = axis.kind === "category" ? axis.names.map(function (n, i) { return [i, n.length > 14 ? n.slice(0, 13) + "…" : n]; }) : [0, 0.25, 0.5, 0.75, 1].map(function (s) { var v = back(axis, s); return [v, shown(v)]; });
      if (ticks.length > 12) ticks = ticks.filter(function (_, i) { return i % Math.ceil(ticks.length / 12) === 0; });
      ticks.forEach(function (tick) { over.appendChild(make("text", { x: x + 6, y: y(axis, tick[0]) + 4 }, tick[1])); });
      var range = ranges[a];
      if (range) { var top = y(axis, Math.min(range[1], axis.high)), end = y(axis, Math.max(range[0], axis.low)); over.appendChild(make("rect", { class: "brush", x: x - 7, width: 14, y: top - 1, height: Math.max(3, end - top + 2) })); }
      var grip = over.appendChild(make("rect", { class: "grip", x: x - 16, width: 32, y: PAD.top - 8, height: HEIGHT - PAD.top - PAD.bottom + 16 }));
      drag(grip, a);
    });
  }
  function drag(grip, a) {
    grip.addEventListener("pointerdown", function (event) {
      event.preventDefault();
      var axis = axes[a], top = over.getBoundingClientRect().top, first = event.clientY - top, moved = false;
      var value = function (at) { return back(axis, Math.max(0, Math.min(1, (HEIGHT - PAD.bottom - at) / (HEIGHT - PAD.top - PAD.bottom)))); };
      var move = function (e) {
        var now = e.clientY - top;
        if (Math.abs(now - first) < 3 && !moved) return;
        moved = true;
        var low = value(Math.max(first, now)), high = value(Math.min(first, now));
        ranges[a] = axis.kind === "category" ? [Math.ceil(low - 0.35), Math.floor(high + 0.35)] : [low, high];
        update(a);
      };
      var up = function () {
        window.removeEventListener("pointermove", move); window.removeEventListener("pointerup", up);
        if (!moved) { ranges[a] = null; update(a); }
      };
      window.addEventListener("pointermove", move); window.addEventListener("pointerup", up);
    });
  }
  function lines(inside) {
    var pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, HEIGHT);
    pen.lineWidth = 1.1;
    var count = inside.filter(Boolean).length, alpha = Math.max(0.1, Math.min(0.8, 60 / Math.max(1, count)));
    [false, true].forEach(function (kept) {
      for (var i = 0; i < runs.length; i++) {
        if (inside[i] !== kept) continue;
        pen.strokeStyle = kept ? colour(i, alpha) : "rgb(128 128 128 / 0.05)";
        pen.beginPath();
        var on = false;
        for (var a = 0; a < axes.length; a++) {
          var v = axes[a].values[i];
          if (v === null) { on = false; continue; }
          if (on) pen.lineTo(places[a], y(axes[a], v)); else pen.moveTo(places[a], y(axes[a], v));
          on = true;
        }
        pen.stroke();
      }
    });
  }

  // The same ranges as fields: what the keyboard uses, and what says them in figures.
  axes.forEach(function (axis, a) {
    var group = document.createElement("div"), id = "range-" + a;
    group.className = "field";
    var label = document.createElement("label");
    label.textContent = axis.label; label.htmlFor = id;
    group.appendChild(label);
    if (axis.kind === "category") {
      var choose = document.createElement("select");
      choose.id = id;
      [""].concat(axis.names).forEach(function (name, i) { var o = document.createElement("option"); o.value = i ? String(i - 1) : ""; o.textContent = i ? name || "(empty)" : "All"; choose.appendChild(o); });
      choose.addEventListener("change", function () { ranges[a] = choose.value === "" ? null : [Number(choose.value), Number(choose.value)]; update(a); });
      group.appendChild(choose);
      axis.show = function () { var r = ranges[a]; choose.value = r && r[0] === r[1] ? String(r[0]) : ""; };
    } else {
      var pair = document.createElement("div"), ends = ["from", "to"].map(function (word, n) {
        var input = document.createElement("input");
        input.type = "number"; input.step = "any"; input.placeholder = shown(n ? axis.high : axis.low);
        input.setAttribute("aria-label", axis.label + ", " + word);
        if (!n) input.id = id;
        input.addEventListener("input", function () {
          var low = ends[0].value === "" ? null : Number(ends[0].value), high = ends[1].value === "" ? null : Number(ends[1].value);
          ranges[a] = low === null && high === null ? null : [low === null ? -Infinity : low, high === null ? Infinity : high];
          update(-1);
        });
        pair.appendChild(input);
        return input;
      });
      pair.className = "pair";
      group.appendChild(pair);
      axis.show = function () { var r = ranges[a]; ends.forEach(function (input, n) { input.value = r && isFinite(r[n]) ? String(Number(r[n].toPrecision(6))) : ""; }); };
    }
    fields.appendChild(group);
  });
  fields.addEventListener("submit", function (event) { event.preventDefault(); });
  root.querySelector("[data-clear]").addEventListener("click", function () { ranges = axes.map(function () { return null; }); axes.forEach(function (axis) { axis.show(); }); update(-1); });

  function list(chosen) {
    var body = root.querySelector("[data-within-table] tbody");
    body.textContent = "";
    chosen.slice(0, ROWS).forEach(function (i) {
      var row = body.insertRow(), head = document.createElement("th"), to = document.createElement("a");
      head.scope = "row"; to.href = "/ui/runs/" + encodeURIComponent(runs[i].id); to.textContent = runs[i].name;
      head.appendChild(to); row.appendChild(head);
      axes.forEach(function (axis) { var v = axis.values[i]; row.insertCell().textContent = v === null ? "–" : axis.kind === "category" ? axis.names[v] : shown(v); });
    });
  }
  function addresses(chosen) {
    var query = chosen.map(function (i) { return "run=" + encodeURIComponent(runs[i].id); }).join("&"), compare = root.querySelector("[data-compare]"), choose = root.querySelector("[data-choose]");
    compare.hidden = chosen.length < 2 || chosen.length > 20;
    choose.hidden = chosen.length < 1 || chosen.length > 200;
    if (!compare.hidden) compare.href = "/ui/runs/compare?" + query;
    if (!choose.hidden) choose.href = "/ui/runs/chosen?" + query;
  }
  var waiting;
  function update(a) {
    if (a >= 0) axes[a].show();
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(function () {
      frame();
      var inside = runs.map(function (_, i) { return within(i); }), chosen = [];
      inside.forEach(function (on, i) { if (on) chosen.push(i); });
      lines(inside); points(inside); list(chosen); addresses(chosen);
      root.querySelector("[data-within]").textContent = ranges.some(Boolean) ? chosen.length + " of " + runs.length + " runs" : "all " + runs.length + " runs";
    });
  }

  // The scatter plot, and the run nearest to the pointer.
  var dots = document.createElement("canvas"), tip = document.createElement("div"), placed = [];
  tip.className = "tip"; tip.hidden = true;
  scatter.appendChild(dots); scatter.appendChild(tip);
  var across = root.querySelector("[data-across]"), up = root.querySelector("[data-up]");
  function points(inside) {
    var wide = Math.max(240, scatter.clientWidth), high = 320, left = 70, bottom = 40, ax = axes[Number(across.value)], ay = axes[Number(up.value)], pen = dots.getContext("2d");
    dots.width = wide * ratio; dots.height = high * ratio; dots.style.height = high + "px";
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, wide, high);
    pen.strokeStyle = token("--line"); pen.fillStyle = token("--soft"); pen.font = "12px system-ui, sans-serif";
    var px = function (v) { return left + part(ax, v) * (wide - left - 20); }, py = function (v) { return high - bottom - part(ay, v) * (high - bottom - 14); };
    var ticks = function (axis) { return axis.kind === "category" ? axis.names.map(function (n, i) { return [i, n.slice(0, 10)]; }).filter(function (_, i) { return i % Math.ceil(axis.names.length / 8) === 0; }) : [0, 0.25, 0.5, 0.75, 1].map(function (s) { return [back(axis, s), shown(back(axis, s))]; }); };
    pen.textAlign = "center";
    ticks(ax).forEach(function (t) { pen.beginPath(); pen.moveTo(px(t[0]), 14); pen.lineTo(px(t[0]), high - bottom); pen.stroke(); pen.fillText(t[1], px(t[0]), high - bottom + 16); });
    pen.fillText(ax.label.slice(0, 40), (left + wide) / 2, high - 6);
    pen.textAlign = "right";
    ticks(ay).forEach(function (t) { pen.beginPath(); pen.moveTo(left, py(t[0])); pen.lineTo(wide - 20, py(t[0])); pen.stroke(); pen.fillText(t[1], left - 6, py(t[0]) + 4); });
    placed = [];
    [false, true].forEach(function (kept) {
      for (var i = 0; i < runs.length; i++) {
        var vx = ax.values[i], vy = ay.values[i];
        if (vx === null || vy === null || inside[i] !== kept) continue;
        pen.fillStyle = kept ? colour(i, 0.75) : "rgb(128 128 128 / 0.12)";
        pen.beginPath(); pen.arc(px(vx), py(vy), 3.2, 0, 7); pen.fill();
        if (kept) placed.push([px(vx), py(vy), i]);
      }
    });
  }
  function nearest(event) {
    var at = dots.getBoundingClientRect(), x = event.clientX - at.left, yy = event.clientY - at.top, best = null, least = 144;
    placed.forEach(function (p) { var d = (p[0] - x) * (p[0] - x) + (p[1] - yy) * (p[1] - yy); if (d < least) { least = d; best = p; } });
    return best;
  }
  dots.addEventListener("pointermove", function (event) {
    var found = nearest(event);
    tip.hidden = !found; dots.style.cursor = found ? "pointer" : "";
    if (!found) return;
    var ax = axes[Number(across.value)], ay = axes[Number(up.value)], say = function (axis) { var v = axis.values[found[2]]; return axis.label + " " + (axis.kind === "category" ? axis.names[v] : shown(v)); };
    tip.textContent = runs[found[2]].name + ": " + say(ax) + ", " + say(ay);
    tip.style.left = Math.min(found[0] + 10, scatter.clientWidth - 200) + "px"; tip.style.top = found[1] + 10 + "px";
  });
  dots.addEventListener("pointerleave", function () { tip.hidden = true; });
  dots.addEventListener("click", function (event) { var found = nearest(event); if (found) location.href = "/ui/runs/" + encodeURIComponent(runs[found[2]].id); });
  [across, up].forEach(function (select) { select.addEventListener("change", function () { update(-1); }); });

  var resizing;
  window.addEventListener("resize", function () { clearTimeout(resizing); resizing = setTimeout(function () { update(-1); }, 120); });
  document.addEventListener("everloop:theme", function () { update(-1); });
  update(-1);
})();
