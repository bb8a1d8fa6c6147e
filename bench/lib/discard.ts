import { connect } from "node:net";

const READ_BUFFER = 1024 * 1024;

/**
 * Gets a body and throws it away, at the least cost to the machine: the server is what is measured. Resolves with the
 * seconds from the request to the last byte.
 */
export function discard(url: URL, expectedBytes: number): Promise<number> {
  return new Promise((resolve, reject) => {
    let head = "";
    let seen = 0;
    const started = performance.now();
    const socket = connect({
      host: url.hostname,
      port: Number(url.port),
      noDelay: true,
      onread: {
        buffer: new Uint8Array(READ_BUFFER),
        callback: (length, buffer) => {
          if (seen > 0 || head.includes("\r\n\r\n")) seen += length;
          else {
            head += Buffer.from(buffer.buffer, 0, length).toString("latin1");
            const end = head.indexOf("\r\n\r\n");
            if (end !== -1) {
              if (!head.startsWith("HTTP/1.1 200 ")) reject(new Error(head.slice(0, 200)));
              seen = head.length - end - 4;
            }
          }
          if (seen >= expectedBytes) {
            resolve((performance.now() - started) / 1000);
            socket.destroy();
          }
          return true;
        },
      },
    });
    socket.once("error", reject);
    socket.once("end", () => reject(new Error(`the body ended after ${seen} of ${expectedBytes} bytes`)));
    socket.write(`GET ${url.pathname}${url.search} HTTP/1.1\r\nhost: ${url.host}\r\n\r\n`);
  });
}
