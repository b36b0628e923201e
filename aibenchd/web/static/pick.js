// Two cells of one model: once one is picked, those that it cannot be laid beside go; the bar says which two they are.

const form = document.getElementById("pick");
const said = document.getElementById("picked");

function look() {
  const boxes = [...form.querySelectorAll("input[name=pick]")];
  const picked = boxes.filter((box) => box.checked);
  const [first] = picked;
  for (const box of boxes) {
    const other = first && (box.dataset.row !== first.dataset.row || box.dataset.device !== first.dataset.device);
    box.disabled = !box.checked && (picked.length > 1 || Boolean(other));
  }
  form.querySelector("button.main").disabled = picked.length !== 2;
  said.textContent = picked.length ? `${first.dataset.row}: ${picked.map((box) => box.dataset.column).join(" against ")}${picked.length < 2 ? " against …" : ""}` : "Pick two cells of one model on one device.";
}

if (form) {
  form.addEventListener("change", look);
  look();
}
