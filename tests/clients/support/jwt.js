// Tokens as an application's login issues them, with nothing but Node.

import crypto from "node:crypto";

/** The secret that the login shares with Fanfare. */
export const JWT_SECRET = "a secret of the tests, longer than 32 bytes";

const encode = (value) => Buffer.from(value).toString("base64url");
const part = (value) => encode(JSON.stringify(value));

/** A token with these claims, good for an hour. */
export function token(claims, { secret = JWT_SECRET, header = { alg: "HS256", typ: "JWT" } } = {}) {
  const expires = Math.floor(Date.now() / 1000) + 3600;
  const message = `${part(header)}.${part({ exp: expires, ...claims })}`;
  return `${message}.${crypto.createHmac("sha256", secret).update(message).digest("base64url")}`;
}

/** The same of an issuer who keeps the secret half of a key pair to itself. */
export class Issuer {
  #algorithm;
  #keys;

  constructor(algorithm) {
    this.#algorithm = algorithm;
    const kinds = {
      RS256: ["rsa", { modulusLength: 2048 }],
      ES256: ["ec", { namedCurve: "P-256" }],
      EdDSA: ["ed25519"],
    };
    this.#keys = crypto.generateKeyPairSync(...kinds[algorithm]);
  }

  /** What anybody may know, as an entry of a key set. */
  get jwk() {
    const key = this.#keys.publicKey.export({ format: "jwk" });
    return { ...key, kid: this.#algorithm, use: "sig", alg: this.#algorithm };
  }

  token(claims) {
    const expires = Math.floor(Date.now() / 1000) + 3600;
    const message = `${part({ alg: this.#algorithm, kid: this.#algorithm })}.${part({ exp: expires, ...claims })}`;
    const hash = this.#algorithm === "EdDSA" ? null : "sha256";
    const key = { key: this.#keys.privateKey, dsaEncoding: "ieee-p1363" };
    return `${message}.${crypto.sign(hash, Buffer.from(message), key).toString("base64url")}`;
  }
}
