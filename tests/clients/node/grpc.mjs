// @grpc/grpc-js: one call, or a `bidirectional` one, whose second message is sent after the first answer; `refused` calls
// another.
import grpc from "@grpc/grpc-js";

const same = (bytes) => bytes;
const client = new grpc.Client("grpc.example.com:443", grpc.credentials.createSsl());
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${process.env.API_KEY}`);
const deadline = Date.now() + 30_000;
const fail = (error) => {
  console.log(error.message);
  process.exit(1);
};
if (process.argv[2] === "bidirectional") {
  const messages = ["one", "two"];
  const call = client.makeBidiStreamRequest("/demo.Echo/Chat", same, same, metadata, { deadline });
  call.on("error", fail);
  call.on("data", (answer) => {
    console.log(answer.toString());
    messages.length ? call.write(Buffer.from(messages.shift())) : call.end();
  });
  call.write(Buffer.from(messages.shift()));
} else {
  const method = process.argv[2] === "refused" ? "Forget" : "Say";
  const done = (error, answer) => (error ? fail(error) : console.log(answer.toString()));
  client.makeUnaryRequest(`/demo.Echo/${method}`, same, same, Buffer.from("one"), metadata, { deadline }, done);
}
