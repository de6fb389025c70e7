// Trading terminal: market data over a websocket, settlement batches over REST. Prices stay decimal texts; numbers are
// only for drawing. A book that misses an update (prev_seq) is asked for again. Protocol: docs/protocol/market-data.md.
"use strict";

const DEPTH = 25, ROWS = 18, TAPE = 60, POINTS = 1500, BATCH_MS = 3000;
const el = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);

// The market data server: ?feed=ws://… , or the port that this origin's /metrics tells, or 7402.
async function feedUrl() {
  if (query.get("feed")) return query.get("feed");
  let port = 7402;
  try {
    const told = /^byline_marketdata_port(?:\{[^}]*\})? (\S+)$/m.exec(await (await fetch("/metrics")).text());
    if (told) port = Number(told[1]);
  } catch (error) { console.info(`no /metrics, so market data is taken to be at ${port}: ${error.message}`); }
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.hostname || "127.0.0.1"}:${port}`;
}

const state = { socket: null, market: query.get("market"), markets: [], book: null, tape: [], points: [], delay: 500, dirty: false };

function send(message) { if (state.socket && state.socket.readyState === 1) state.socket.send(JSON.stringify(message)); }

function connection(kind, text) { const box = el("connection"); box.className = `connection ${kind}`; box.lastElementChild.textContent = text; }

async function connect() {
  connection("", "connecting");
  const socket = state.socket = new WebSocket(await feedUrl());
  socket.onopen = () => { state.delay = 500; connection("live", "live"); send({ type: "subscribe", channel: "status" }); if (state.market) follow(state.market); };
  socket.onmessage = (event) => take(JSON.parse(event.data));
  socket.onclose = (event) => {
    connection("down", `${event.reason || "no market data"} · trying again`);
    setTimeout(connect, state.delay);
    state.delay = Math.min(state.delay * 2, 8000);
  };
}

function channels(market) { return [`orderbook:${market}`, `trades:${market}`, `price:${market}`]; }

function follow(market) {
  state.market = market; state.listing = state.markets.find((entry) => entry.market === market); state.book = null; state.tape = []; state.points = []; state.dirty = true;
  el("market").textContent = market;
  for (const id of ["last", "high", "low", "volume", "turnover", "trades24"]) el(id).textContent = "–";
  for (const channel of channels(market)) send(channel.startsWith("orderbook") ? { type: "subscribe", channel, depth: DEPTH } : { type: "subscribe", channel });
  drawMarkets();
}

function choose(market) {
  if (market === state.market) return;
  if (state.market) for (const channel of channels(state.market)) send({ type: "unsubscribe", channel });
  follow(market);
}

function take(message) {
  if (message.seq) el("sequence").textContent = message.seq.toLocaleString("en");
  if (message.type === "slow") return connection(message.conflated ? "" : "live", message.conflated ? "this page is slow: updates conflated" : "live");
  if (message.type === "error") return message.code === "already_subscribed" ? undefined : connection("down", message.message);
  if (!message.channel || !["snapshot", "update", "event"].includes(message.type)) return;
  const [kind, ...rest] = message.channel.split(":");
  if (kind === "status") return takeMarkets(message.markets);
  if (rest.join(":") !== state.market) return;
  if (kind === "orderbook") takeBook(message);
  else if (kind === "trades") takeTrades(message);
  else takePrice(message);
  state.dirty = true;
}

function takeMarkets(markets) {
  state.markets = markets;
  state.listing = markets.find((entry) => entry.market === state.market);
  const known = markets.find((entry) => entry.market === state.market);
  if (!known && markets.length) { connection("live", "live"); follow(markets[0].market); } else drawMarkets();
}

function takeBook(message) {
  if (message.type === "snapshot") state.book = { seq: message.seq, bids: new Map(message.bids), asks: new Map(message.asks) };
  else if (!state.book) return;
  else if (message.prev_seq !== state.book.seq) {
    state.book = null; // an update is missing: begin anew
    send({ type: "unsubscribe", channel: message.channel });
    send({ type: "subscribe", channel: message.channel, depth: DEPTH });
  } else {
    for (const side of ["bids", "asks"]) for (const [at, lots] of message[side]) lots === "0" ? state.book[side].delete(at) : state.book[side].set(at, lots);
    state.book.seq = message.seq;
  }
}

function takeTrades(message) {
  if (message.type === "snapshot") { state.tape = []; state.points = []; }
  for (const trade of message.trades) { state.tape.unshift(trade); state.points.push([trade.ts / 1e6, Number(trade.price)]); }
  state.tape.length = Math.min(state.tape.length, TAPE);
  if (state.points.length > POINTS) state.points.splice(0, state.points.length - POINTS);
}

function takePrice(message) {
  const set = (id, value) => { el(id).textContent = value === null ? "–" : value; };
  for (const [id, text] of [["last", message.last], ["high", message.high_24h], ["low", message.low_24h]]) set(id, text && price(text));
  set("volume", message.volume_24h);
  set("turnover", message.quote_volume_24h); set("trades24", message.trades_24h.toLocaleString("en")); set("phase", message.phase);
  const change = message.last && Number(message.open_24h) ? (Number(message.last) / Number(message.open_24h) - 1) * 100 : null;
  el("change").textContent = change === null ? "" : `${change >= 0 ? "+" : ""}${change.toFixed(2)} %`;
  el("change").className = change >= 0 ? "up" : "down-text";
}

function drawMarkets() {
  el("markets").replaceChildren(...state.markets.map((entry) => {
    const button = document.createElement("button");
    button.textContent = entry.market; button.ariaPressed = String(entry.market === state.market);
    button.onclick = () => choose(entry.market);
    return button;
  }));
}

// All prices of a market with the decimals of its tick, so that they line up; sizes likewise with its lot.
function padded(text, step) {
  const decimals = (text, at = text.indexOf(".")) => (at < 0 ? 0 : text.length - at - 1);
  const missing = decimals(String(step ?? "1")) - decimals(text);
  return missing <= 0 ? text : text + (text.includes(".") ? "" : ".") + "0".repeat(missing);
}
const price = (text) => padded(text, state.listing?.tick);
const size = (text) => padded(text, state.listing?.lot);

function row(kind, texts, share) {
  const line = document.createElement("div");
  line.className = `row ${kind}`;
  if (share !== undefined) { const bar = document.createElement("i"); bar.style.width = `${share * 100}%`; line.append(bar); }
  line.append(...texts.map((text) => { const cell = document.createElement("span"); cell.textContent = text; return cell; }));
  return line;
}

function quiet(text) { const line = document.createElement("div"); line.className = "quiet"; line.textContent = text; return line; }

function side(levels, direction) {
  let total = 0;
  return [...levels].sort((a, b) => direction * (a[0] - b[0])).slice(0, ROWS).map(([at, lots]) => [at, lots, (total += Number(lots))]);
}

function drawBook() {
  if (!state.book) { el("bids").replaceChildren(quiet("waiting for a snapshot")); el("asks").replaceChildren(); return; }
  const bids = side(state.book.bids, -1), asks = side(state.book.asks, 1);
  const most = Math.max(1e-12, ...[...bids, ...asks].map((level) => level[2]));
  const lines = (levels, kind) => levels.map((level) => row(kind, [price(level[0]), size(level[1]), size(String(+level[2].toPrecision(8)))], level[2] / most));
  el("bids").replaceChildren(...(bids.length ? lines(bids, "bid") : [quiet("no bids")]));
  el("asks").replaceChildren(...(asks.length ? lines(asks, "ask").reverse() : [quiet("no asks")]));
  const last = state.tape[0];
  el("mid").textContent = last ? price(last.price) : "–";
  el("mid").className = `mid ${{ sell: "down-text", buy: "up" }[last?.aggressor] ?? ""}`; // an uncross has no aggressor
  const spread = bids.length && asks.length ? asks[0][0] - bids[0][0] : null; // before an uncross bids may reach the asks
  el("spread").textContent = spread === null ? "" : spread > 0 ? `spread ${+spread.toPrecision(6)}` : "crossed, not yet traded";
}

function drawTape() {
  const time = (ns) => new Date(ns / 1e6).toLocaleTimeString("en-GB");
  el("tape").replaceChildren(...(state.tape.length ? state.tape.map((trade) => row(trade.aggressor, [price(trade.price), size(trade.size), time(trade.ts)])) : [quiet("no trades yet")]));
}

function drawChart() {
  const canvas = el("chart"), scale = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) { canvas.width = Math.round(width * scale); canvas.height = Math.round(height * scale); }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0); pen.clearRect(0, 0, width, height);
  pen.font = "11px system-ui, sans-serif"; pen.fillStyle = "#7d8a9c";
  const points = state.points;
  if (points.length < 2) { pen.fillText("waiting for trades", 14, 24); return; }
  const prices = points.map((point) => point[1]);
  let low = Math.min(...prices), high = Math.max(...prices);
  const margin = (high - low || high || 1) * 0.08; low -= margin; high += margin;
  const left = 10, right = width - 74, top = 10, bottom = height - 24;
  const first = points[0][0], span = points[points.length - 1][0] - first || 1;
  const x = (at) => left + (at - first) / span * (right - left), y = (value) => bottom - (value - low) / (high - low) * (bottom - top);
  pen.strokeStyle = "#1d2530"; pen.lineWidth = 1;
  const digits = Math.max(0, Math.min(8, 2 - Math.floor(Math.log10(high - low))));
  for (let step = 0; step <= 4; step++) {
    const level = low + (high - low) * step / 4;
    pen.beginPath(); pen.moveTo(left, y(level)); pen.lineTo(right, y(level)); pen.stroke();
    pen.textAlign = "left"; pen.fillText(level.toFixed(digits), right + 8, y(level) + 4);
    pen.textAlign = step === 0 ? "left" : step === 4 ? "right" : "center";
    pen.fillText(new Date(first + span * step / 4).toLocaleTimeString("en-GB"), left + (right - left) * step / 4, height - 8);
  }
  const up = prices[prices.length - 1] >= prices[0], color = up ? "#2fbf8a" : "#f0616d";
  pen.beginPath();
  points.forEach(([at, value], index) => { if (index) { pen.lineTo(x(at), y(points[index - 1][1])); pen.lineTo(x(at), y(value)); } else pen.moveTo(x(at), y(value)); });
  pen.strokeStyle = color; pen.lineWidth = 1.5; pen.stroke();
  pen.lineTo(right, bottom); pen.lineTo(left, bottom); pen.closePath();
  const shade = pen.createLinearGradient(0, top, 0, bottom); shade.addColorStop(0, color + "40"); shade.addColorStop(1, color + "00");
  pen.fillStyle = shade; pen.fill();
  const lastY = y(prices[prices.length - 1]);
  pen.fillStyle = color; pen.fillRect(right + 4, lastY - 9, 68, 18);
  pen.fillStyle = "#0b0e13"; pen.textAlign = "left"; pen.fillText(price(state.tape[0].price), right + 8, lastY + 4);
}

function draw() {
  if (state.dirty) { state.dirty = false; drawBook(); drawTape(); drawChart(); }
  requestAnimationFrame(draw);
}

// The batches, from the folder's own origin. Field names of GET /v1/settlement/batches, with or without the envelope.
async function pollBatches() {
  try {
    const answer = await fetch("/v1/settlement/batches", { headers: { accept: "application/json" } });
    if (!answer.ok) throw new Error(`GET /v1/settlement/batches answered ${answer.status}`);
    const body = await answer.json();
    const data = body.data ?? body;
    drawBatches(Array.isArray(data) ? data : data.items ?? data.batches ?? []);
  } catch (error) { el("batch-note").textContent = `not reachable: ${error.message}`; }
  setTimeout(pollBatches, BATCH_MS);
}

function drawBatches(batches) {
  const number = (batch) => batch.number ?? batch.batch ?? batch.id ?? batch.n;
  const newest = [...batches].sort((a, b) => number(b) - number(a)).slice(0, 5);
  if (newest.length) {
    el("batch-note").textContent = newest[0].chain ?? "";
    el("explain").hidden = newest[0].embedded === false;
  } else el("batch-note").textContent = "none yet: the first is cut after ten seconds of trading";
  el("batches").replaceChildren(...newest.map((batch) => {
    const line = document.createElement("tr"), status = batch.status ?? batch.state ?? "–";
    const digests = batch.digests ?? (batch.digest ? [batch.digest] : []);
    const cells = [`#${number(batch)}`, status, batch.first_sequence !== undefined ? `${batch.first_sequence} – ${batch.last_sequence}` : "–", digests.join(" ") || "–"];
    if (batch.error) cells[3] = batch.error;
    cells.forEach((text, index) => {
      const cell = document.createElement("td");
      cell.textContent = text; cell.title = text;
      cell.className = index === 1 ? `status-${status}` : index === 3 ? "digest" : "";
      line.append(cell);
    });
    return line;
  }));
}

addEventListener("resize", () => { state.dirty = true; });
connect(); pollBatches(); draw();
