/** What a refusal of the server said; any other error means that it could not be asked. */
export class Refusal extends Error {}
