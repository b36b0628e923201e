// Two cells of one model: once one is picked, those of other models go; the bar says which two they are, and how they are measured.

const form = document.getElementById("pick");
const said = document.getElementById("picked");

function look() {
  const boxes = [...form.querySelectorAll("input[name=pick]")];
  const picked = boxes.filter((box) => box.checked);
  const [first] = picked;
  for (const box of boxes) {
    const other = first && box.dataset.row !== first.dataset.row;
    box.disabled = !box.checked && (picked.length > 1 || Boolean(other));
  }
  form.querySelector("button.main").disabled = picked.length !== 2;
  const apart = new Set(picked.map((box) => box.dataset.device)).size > 1;
  const how = picked.length < 2 ? " against …" : apart ? ", each by itself" : ", interleaved";
  said.textContent = first ? `${first.dataset.row}: ${picked.map((box) => box.dataset.column).join(" against ")}${how}` : "Pick two cells of one model.";
}

if (form) {
  form.addEventListener("change", look);
  look();
}
