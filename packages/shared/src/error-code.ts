/** The code of an error of Node, OpenSSL, undici or this project; "" when it has none. */
export const codeOf = (error: unknown): string =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
