// While two models load and write, which may take a minute or two, the form says so and is not sent again.

const form = document.getElementById("trying");
const [button, state] = [form?.querySelector("button"), document.getElementById("state")];

function working(on) {
  button.disabled = on;
  state.textContent = on ? "writing … this may take a minute or two" : "";
}

if (form) {
  form.addEventListener("submit", () => working(true));
  addEventListener("pageshow", () => working(false)); // also where the browser's button leads back to it
}
