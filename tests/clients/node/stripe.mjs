// stripe-node: a customer, by an agent or by the `fetch client`; `refused` makes a refund; `around` and `through` go to
// the HOST:PORT that is given, without and with the agent.
import { HttpsProxyAgent } from "https-proxy-agent";
import Stripe from "stripe";

import { fetch } from "./proxied.mjs";

const [how, elsewhere] = process.argv.slice(2);
const options = { timeout: 30_000, maxNetworkRetries: 0, telemetry: false };
// As it comes, it has an agent of its own that knows of no proxy.
if (how === "fetch client") {
  options.httpClient = Stripe.createFetchHttpClient(fetch);
} else if (how !== "around") {
  options.httpAgent = new HttpsProxyAgent(process.env.HTTPS_PROXY);
}
if (elsewhere) {
  [options.host, options.port] = elsewhere.split(":");
}
const client = new Stripe(process.env.API_KEY ?? process.env.STRIPE_API_KEY, options);
if (how === "refused") {
  console.log(await client.refunds.create({ charge: "ch_1" }));
} else {
  console.log((await client.customers.retrieve("cus_1")).description);
}
