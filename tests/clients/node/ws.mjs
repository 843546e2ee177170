// ws: two messages, the second after the answer to the first; `refused` asks for another path; `around` and `through` go
// to the URL that is given, without and with the agent.
import { HttpsProxyAgent } from "https-proxy-agent";
import WebSocket from "ws";

const [how, elsewhere] = process.argv.slice(2);
const url = elsewhere ?? `wss://sockets.example.com/${how === "refused" ? "private" : "echo"}`;
const agent = how === "around" ? undefined : new HttpsProxyAgent(process.env.HTTPS_PROXY);
const headers = { Authorization: `Bearer ${process.env.API_KEY}` };
const socket = new WebSocket(url, { agent, headers, handshakeTimeout: 30_000 });
const messages = ["one", "two"];
const fail = (text) => {
  console.log(text);
  process.exit(1);
};
socket.on("open", () => socket.send(messages.shift()));
socket.on("message", (data) => {
  console.log(data.toString());
  messages.length ? socket.send(messages.shift()) : socket.close();
});
socket.on("error", (error) => fail(error.message));
socket.on("unexpected-response", async (_, answer) => {
  fail(`${answer.statusCode} ${Buffer.concat(await answer.toArray())}`);
});
