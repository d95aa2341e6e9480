'use strict';

// Polls the app every second for the request that it received, and shows each new token. It never sets HTML, only text.

const at = (id) => document.getElementById(id);
const seconds = (ms) => Math.round(ms / 1000) + ' s';

let polls = 0;
let redirects = 0;
let shown = '';
let shownSince = 0;

function appendLog(text) {
  const line = document.createElement('li');
  line.textContent = new Date().toLocaleTimeString() + '  ' + text;
  at('changes').append(line);
}

function showToken(got) {
  if (got.token !== shown) {
    const end = '…' + got.token.slice(-8);
    appendLog(shown ? `new token ${end}, ${seconds(Date.now() - shownSince)} after the former one` : `token ${end}`);
    shown = got.token;
    shownSince = Date.now();
    at('token').textContent = got.token;
    at('jwt').hidden = !got.jwt;
    at('header').textContent = got.jwt?.header ?? '';
    at('payload').textContent = got.jwt?.payload ?? '';
    at('token').classList.remove('fresh');
    requestAnimationFrame(() => at('token').classList.add('fresh'));
  }
  const now = Date.parse(got.time);
  if (!got.jwt?.issued_at || !got.jwt?.expires) {
    at('left-line').hidden = true;
    return;
  }
  const left = got.jwt.expires * 1000 - now;
  const lifetime = (got.jwt.expires - got.jwt.issued_at) * 1000;
  at('life').textContent = `${seconds(now - got.jwt.issued_at * 1000)} old, expires in ${seconds(left)}`;
  at('left').value = left / lifetime;
}

function showSignedOut(problem) {
  appendLog('signed out');
  const link = document.createElement('a');
  link.href = problem.login_url;
  link.textContent = 'Sign in again';
  at('title').textContent = 'You are signed out';
  at('life').replaceChildren(link);
  at('left-line').hidden = true;
}

// poll returns false once the user is signed out.
async function poll() {
  // A redirect would start a login without the user's consent: the script counts it and does not follow it.
  const answer = await fetch('/received', { redirect: 'manual', cache: 'no-store', signal: AbortSignal.timeout(15000) });
  at('polls').textContent = ++polls;
  if (answer.type === 'opaqueredirect') {
    at('redirects').textContent = ++redirects;
  } else if (answer.status === 401) {
    showSignedOut(await answer.json());
    return false;
  } else if (answer.ok) {
    showToken(await answer.json());
  } else {
    at('life').textContent = `The app answered ${answer.status}. Trying again.`;
  }
  return true;
}

async function watch() {
  let signedIn = true;
  try {
    signedIn = await poll();
  } catch {
    at('life').textContent = 'No answer. Has the demo ended?';
  }
  if (signedIn) {
    setTimeout(watch, 1000);
  }
}

at('ask').addEventListener('click', async () => {
  at('session').hidden = false;
  try {
    const answer = await fetch('/oauth2/session');
    at('session').textContent = JSON.stringify(await answer.json(), null, 2);
  } catch {
    at('session').textContent = 'No answer.';
  }
});

watch();
