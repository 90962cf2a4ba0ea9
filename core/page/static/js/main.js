// Decides between the login and the chat, and hands over between them.

import { API } from "./api.js";
import { App } from "./app.js";
import { $ } from "./dom.js";
import { Welcome } from "./welcome.js";

const api = new API();
const welcome = new Welcome(api, enter);
let app = null;

function enter(me) {
  welcome.hide();
  app = new App(api, me, leave);
  app.start();
}

// leave shows the login again; text says why, where the user did not ask for it.
function leave(text) {
  app?.stop();
  app = null;
  $("app").hidden = true;
  welcome.show(text);
}

try {
  enter(await api.me());
} catch (err) {
  welcome.show(err.status === 401 ? "" : err.message);
}
