/* Labelling by keyboard: digits answer the marked question, J and K move, Enter saves, S skips, B goes back, C comments, ? shows the keys. */
(function () {
  "use strict";
  var form = document.querySelector("form[data-label]");
  if (!form) return;
  var fields = Array.from(form.querySelectorAll("fieldset"));
  var active = 0;

  function mark(index, focus) {
    if (!fields.length) return;
    active = Math.max(0, Math.min(fields.length - 1, index));
    fields.forEach(function (field, i) { field.toggleAttribute("data-active", i === active); });
    if (focus) (fields[active].querySelector("input:checked") || fields[active].querySelector("input")).focus();
  }
  fields.forEach(function (field, i) { field.addEventListener("focusin", function () { mark(i, false); }); });

  function answer(digit) {
    var field = fields[active], hit = null;
    if (!field) return;
    field.querySelectorAll("label.choice").forEach(function (choice) {
      var key = choice.querySelector("kbd");
      if (key && key.textContent === digit) hit = choice.querySelector("input");
    });
    if (!hit) return;
    hit.checked = true;
    hit.focus();
    if (active < fields.length - 1) mark(active + 1, true);
  }
  function save(how) {
    var button = form.querySelector('button[value="' + how + '"]');
    form.requestSubmit(button);
  }
  document.addEventListener("keydown", function (event) {
    var at = event.target, text = /^(TEXTAREA|SELECT)$/.test(at.tagName) || (at.tagName === "INPUT" && at.type !== "radio");
    if (event.key === "Escape" && text) { at.blur(); mark(active, true); return; }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); save("save"); return; }
    if (text || event.ctrlKey || event.metaKey || event.altKey) return;
    var key = event.key.toLowerCase();
    if (/^[0-9]$/.test(key)) { event.preventDefault(); answer(key); }
    else if (key === "enter" && !/^(A|BUTTON|SUMMARY)$/.test(at.tagName)) { event.preventDefault(); save("save"); }
    else if (key === "s") { event.preventDefault(); save("skip"); }
    else if (key === "j" || key === "k") { event.preventDefault(); mark(active + (key === "j" ? 1 : -1), true); }
    else if (key === "c") { event.preventDefault(); document.getElementById("comment").focus(); }
    else if (key === "b") { var back = document.querySelector("a[data-back]"); if (back) back.click(); }
    else if (key === "?") { event.preventDefault(); var keys = form.querySelector("[data-keys]"); keys.open = !keys.open; }
  });
})();
