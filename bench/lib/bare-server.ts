/** The bar for `serve`: what plain Node does with a file. `node bare-server.ts FILE` prints its port. */
import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";

const [file = ""] = process.argv.slice(2);
const { size } = statSync(file);
const server = createServer((_request, response) => {
  response.writeHead(200, { "content-type": "application/octet-stream", "content-length": size });
  createReadStream(file).pipe(response);
});
server.listen(0, "127.0.0.1", () => {
  const address = server.address();
  if (address !== null && typeof address === "object") console.log(`port ${address.port}`);
});
