/** No route has one. */
const noSchema = (): never => {
  throw new Error("no route of this program has a schema");
};

/** For `fastify()`: its compilers of schemas, ajv among them, are not loaded, and take no memory (2 MiB). */
export const WITHOUT_SCHEMAS = {
  schemaController: { compilersFactory: { buildValidator: noSchema, buildSerializer: noSchema } },
};
