// Decides between the login and the chat, and hands over between them.

import { API } from "./api.js";
import { App } from "./app.js";
import { $ } from "./dom.js";
import { Welcome } from "./welcome.js";

const api = new API();
const welcome = new Welcome(api, enter);
let app = null;

// The tabs of one address share the login's cookie. When another tab logs in as
// somebody else, this one would go on under the wrong name: it stops instead.
const tabs = new BroadcastChannel("tracegate");
tabs.onmessage = ({ data: { user } }) => app && app.user !== user && leave("Another tab of this address has logged in as somebody else.");

function enter(me) {
  welcome.hide();
  tabs.postMessage({ user: me.user.id });
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
