// The page works without this file. With it rows arrive by themselves, keys move through
// tables, and ids can be copied. What it puts into the page comes from the page itself: it
// is fetched again, and whole elements are exchanged, so nothing is ever made of text here.
(() => {
  'use strict';
  const one = (sel, root) => (root || document).querySelector(sel);
  const all = (sel, root) => Array.from((root || document).querySelectorAll(sel));

  // ---- bringing the page up to date ----
  let fetching = null, again = false;
  const busy = () => one('details.confirm[open]') !== null;

  let took = 0, last = 0;
  async function load() {
    const began = last = Date.now();
    const answer = await fetch(location.href, { headers: { Accept: 'text/html' } });
    if (!answer.ok) throw new Error('status ' + answer.status);
    if (answer.redirected) { location.reload(); return; }
    const next = new DOMParser().parseFromString(await answer.text(), 'text/html');
    took = Date.now() - began;
    for (const old of all('[data-swap]')) {
      const fresh = next.getElementById(old.id);
      if (fresh && fresh.innerHTML !== old.dataset.was) swap(old, fresh);
    }
    document.dispatchEvent(new Event('fresh'));
  }
  function swap(old, fresh) {
    const had = new Set(all('tr[data-id]', old).map((r) => r.dataset.id));
    const at = one('tr.at', old), id = at && at.dataset.id, focused = old.contains(document.activeElement);
    const open = all('details[open] > summary', old).map((s) => s.textContent);
    const was = fresh.innerHTML;
    old.replaceChildren(...[...fresh.childNodes].map((n) => document.adoptNode(n)));
    old.dataset.was = was;
    for (const row of all('tr[data-id]', old)) if (had.size && !had.has(row.dataset.id)) row.classList.add('new');
    for (const s of all('details > summary', old)) if (open.includes(s.textContent)) s.parentElement.open = true;
    const row = id && all('tr[data-id]', old).find((r) => r.dataset.id === id);
    if (row) select(row, focused);
    dress(old);
  }
  // refresh fetches once at a time; who asks meanwhile gets one more afterwards.
  function refresh() {
    if (fetching) { again = true; return fetching; }
    fetching = load().catch(() => {}).finally(() => {
      fetching = null;
      if (again) { again = false; later(); }
    });
    return fetching;
  }
  let timer = null;
  // The first change shows at once. Where they never end nobody reads rows that change more often than every two seconds, and
  // a gateway that takes long to answer has enough to do.
  const rest = () => Math.max(300, last + 2000 - Date.now(), Math.min(10000, 5 * took));
  function later() { if (timer === null) timer = setTimeout(() => { timer = null; refresh(); }, rest()); }

  const every = Number((one('main') || {}).dataset.refresh || 0);
  if (every) setInterval(() => { if (!document.hidden && !busy()) refresh(); }, every * 1000);

  // ---- a search that has found nothing yet goes on by itself ----
  // Each step is a page of its own, so that nobody else waits for a long search.
  async function onward(root, left) {
    const link = one('[data-further]', root);
    if (!link) return;
    if (left === 0) return; // from here on by hand
    const answer = await fetch(link.href, { headers: { Accept: 'text/html' } });
    if (!answer.ok || answer.redirected) return;
    const next = new DOMParser().parseFromString(await answer.text(), 'text/html');
    if (one('[data-further]', next)) {
      const says = one('.reached'), reached = one('.reached', next), shown = one('[data-further]');
      if (!shown) return; // the view has changed meanwhile
      shown.href = one('[data-further]', next).href;
      if (says && reached) says.textContent = reached.textContent;
      return onward(next, left - 1);
    }
    location.replace(link.href);
  }
  onward(document, 200).catch(() => {});

  // ---- live rows ----
  const live = one('#live');
  if (live && window.EventSource) {
    let source = null, paused = false, waiting = 0;
    const word = one('.word', live), button = one('#pause');
    const say = () => {
      const lost = source && source.readyState !== EventSource.OPEN;
      live.classList.toggle('paused', paused);
      live.classList.toggle('lost', Boolean(lost));
      word.textContent = paused ? 'paused' + (waiting ? ', ' + waiting + ' changes wait' : '') : lost ? 'connecting' : 'live';
      button.textContent = paused ? 'Go on' : 'Pause';
      button.setAttribute('aria-pressed', String(paused));
    };
    const came = (e) => { if (paused) { waiting += Number((/"rows":(\d+)/.exec(e.data) || [0, 1])[1]); say(); } else later(); };
    const open = () => {
      if (source) return;
      source = new EventSource(live.dataset.stream);
      source.addEventListener('open', () => { say(); if (!paused) later(); });
      source.addEventListener('error', say);
      source.addEventListener('changed', came);
      source.addEventListener('dropped', came);
    };
    const close = () => { if (source) { source.close(); source = null; } };
    button.addEventListener('click', () => { paused = !paused; if (!paused) { waiting = 0; later(); } say(); });
    // A browser gives one host few connections: tabs that nobody looks at hold none.
    document.addEventListener('visibilitychange', () => { if (document.hidden) close(); else open(); });
    window.addEventListener('pagehide', close);
    live.hidden = false;
    open();
    say();
  }

  // ---- one delivery: follow it until it is done ----
  const watch = one('[data-watch]');
  if (watch && window.EventSource) {
    const state = one('#head .tag');
    const moving = state && ['pending', 'held'].includes(state.textContent) || /[?&](job|done)=/.test(location.search);
    if (moving) {
      const source = new EventSource(watch.dataset.stream);
      source.addEventListener('open', later);
      source.addEventListener('delivery', (e) => { if (e.lastEventId === watch.dataset.watch) later(); });
      window.addEventListener('pagehide', () => source.close());
    }
  }

  // ---- keys ----
  function select(row, focus) {
    for (const r of all('tr.at')) r.classList.remove('at');
    row.classList.add('at');
    if (focus) { const a = one('a.open', row); if (a) a.focus({ preventScroll: true }); row.scrollIntoView({ block: 'nearest' }); }
  }
  document.addEventListener('keydown', (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName);
    if (e.key === 'Escape') {
      const box = one('details.confirm[open]');
      if (box) { box.open = false; one('summary', box).focus(); } else if (typing) e.target.blur();
      return;
    }
    if (typing) return;
    const rows = all('table[data-keys] tbody tr[data-id]'), i = rows.findIndex((r) => r.classList.contains('at'));
    if (e.key === 'j' && rows.length) select(rows[Math.min(i + 1, rows.length - 1)], true);
    else if (e.key === 'k' && rows.length) select(rows[Math.max(i - 1, 0)], true);
    else if (e.key === '/') { const q = one('#q'); if (q) { q.focus(); q.select(); } else location.href = '/'; }
    else if (e.key === 'p') { const b = one('#pause'); if (b) b.click(); else return; }
    else if (e.key === 'u') history.back();
    else return;
    e.preventDefault();
  });
  // One box that asks at a time.
  document.addEventListener('toggle', (e) => {
    if (e.target.matches && e.target.matches('details.confirm[open]')) for (const d of all('details.confirm[open]')) if (d !== e.target) d.open = false;
  }, true);
  // What is asked once is sent once.
  document.addEventListener('submit', (e) => {
    if (e.target.method !== 'post') { // what is not asked for need not stand in the address
      for (const f of e.target.elements) if (f.name && !f.value) f.disabled = true;
      return;
    }
    const b = one('button', e.target);
    if (b) setTimeout(() => { b.disabled = true; }, 0);
  });
  window.addEventListener('pageshow', () => { for (const b of all('form :disabled')) b.disabled = false; });

  // ---- copying, and times of here ----
  async function copy(text) {
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    const box = document.createElement('textarea'); // plain http on another host has no clipboard
    box.value = text;
    document.body.append(box);
    box.select();
    document.execCommand('copy');
    box.remove();
  }
  function dress(root) {
    for (const el of all('[data-copy]', root)) {
      const text = el.textContent.trim();
      const b = document.createElement('button');
      b.type = 'button';
      b.className = 'copy';
      b.textContent = 'copy';
      b.setAttribute('aria-label', 'copy ' + (text.length > 60 ? 'this text' : text));
      b.addEventListener('click', async (e) => {
        e.preventDefault();
        try { await copy(text); b.textContent = 'copied'; } catch { b.textContent = 'not allowed'; }
        setTimeout(() => { b.textContent = 'copy'; }, 1500);
      });
      if (el.tagName === 'TD') el.append(b);
      else if (el.tagName === 'PRE') {
        const box = document.createElement('div');
        box.className = 'copied';
        el.replaceWith(box);
        box.append(el, b);
      } else (el.closest('a') || el).after(b);
    }
    for (const t of all('time[datetime]', root)) {
      const d = new Date(t.dateTime);
      if (!isNaN(d)) t.title = d.toLocaleString() + ' here';
    }
  }
  dress(document);
})();
