// axios: a repository at GitHub; `refused` asks for its issues.
import axios from "axios";

const path = process.argv[2] === "refused" ? "/issues" : "";
const headers = { Authorization: `Bearer ${process.env.API_KEY}` };
try {
  const answer = await axios.get(`https://api.github.com/repos/acme/demo${path}`, { headers, timeout: 30_000 });
  console.log(answer.status, answer.headers.toJSON(), answer.data);
} catch (error) {
  console.log(error.message, error.response?.status, error.response?.data);
  process.exitCode = 1;
}
