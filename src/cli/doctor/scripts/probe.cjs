const [how, url] = process.argv.slice(-2);
const https = require('node:https');
const fail = (error) => {
  console.error(error.cause || error);
  process.exit(1);
};
const done = (status) => console.log(`status=${status}`);
if (how === 'fetch') {
  fetch(url).then((answer) => done(answer.status), fail);
} else {
  // As stripe's SDK does: an agent of its own.
  const options = how === 'agent' ? { agent: new https.Agent({ keepAlive: false }) } : {};
  https.get(url, options, (answer) => done(answer.resume().statusCode)).on('error', fail);
}
