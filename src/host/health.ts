import { MeshConfigurationError, toError } from "../errors.js";
import { publicMessage } from "../public-message.js";
import { answerJson } from "../runtime/http-errors.js";
import type { HealthReport, RawRouteRegistration } from "../contract/registration.js";

export interface Readiness {
  /** The worst of all checks. */
  readonly status: HealthReport["status"];
  readonly checks: Readonly<Record<string, HealthReport>>;
}

/** Named checks, all answered from memory: a probe never waits for Postgres. */
export class Health {
  readonly #checks = new Map<string, () => HealthReport>();

  /** Throws `MeshConfigurationError` for a name that is taken. */
  add(name: string, check: () => HealthReport): void {
    if (this.#checks.has(name)) throw new MeshConfigurationError(`health check "${name}" exists already: choose another name`);
    this.#checks.set(name, check);
  }

  read(): Readiness {
    const checks: Record<string, HealthReport> = {};
    for (const [name, check] of this.#checks) checks[name] = run(check);
    const statuses = Object.values(checks).map(({ status }) => status);
    return { status: statuses.includes("failing") ? "failing" : statuses.includes("degraded") ? "degraded" : "ok", checks };
  }

  /** `GET /livez` and `GET /readyz`. They stand behind all other routes, so that guards decide who sees them. */
  route(): RawRouteRegistration {
    return {
      kind: "raw-route",
      name: "__chimpbase.health",
      handler: (request, response) => {
        if (request.method !== "GET" && request.method !== "HEAD") return false;
        const path = request.url?.split("?", 1)[0];
        if (path === "/livez") answerJson(response, 200, { status: "ok" });
        else if (path === "/readyz") this.#answerReadiness(response);
        else return false;
        return true;
      },
    };
  }

  #answerReadiness(response: Parameters<typeof answerJson>[0]): void {
    const readiness = this.read();
    answerJson(response, readiness.status === "failing" ? 503 : 200, readiness);
  }
}

function run(check: () => HealthReport): HealthReport {
  try {
    return check();
  } catch (error) {
    return { status: "failing", error: publicMessage(toError(error)) };
  }
}
