// For users
export { createHost } from "./host/host.js";
export { action, contextExtension, cron, onStart, onStop, plugin, route, subscription, worker } from "./host/registrations.js";
export { chimpbaseMesh } from "./mesh/mesh.js";
export { registerServices } from "./mesh/register-services.js";
export { chimpbaseAuth } from "./plugins/auth.js";
export { Action, Event, Method, Service, Started, Stopped } from "./service/decorators.js";
export { service } from "./service/definition.js";
export { describe } from "./service/describe.js";
export { createLogger } from "./logger.js";
export { startEmbedded as startEmbeddedPostgres } from "./storage/embedded.js";
export {
  MeshActionNotFoundError, MeshCallError, MeshCancelledError, MeshConfigurationError, MeshError, MeshNoAvailableNodeError,
  MeshNoConsumerError, MeshOverloadedError, MeshPayloadTooLargeError, MeshTimeoutError, MeshUnauthorizedError,
  MeshValidationError, ServiceDefinitionError,
} from "./errors.js";

export type { DatabaseOptions, Host, HostOptions, SecretOptions, ServerOptions, ServerTlsOptions, StartOptions } from "./host/host.js";
export type { ActionOptions, EventOptions, ServiceOptions } from "./service/decorators.js";
export type { MeshOptions, PeerTlsOptions } from "./mesh/mesh.js";
export type { AuthOptions } from "./plugins/auth.js";
export type { Logger, LoggerOptions, LogAttributes, LogLevel } from "./logger.js";
export type { MeshErrorOptions, ValidationIssue } from "./errors.js";
export type { Caller, Context, EnqueueOptions, EventInfo, Meta, ServiceSelf } from "./contract/context.js";
export type { CronOptions, CronTick, Registration, RouteEnv, WorkerOptions } from "./contract/registration.js";
export type { Class, ParamsSchema, RetryOptions, ServiceDefinition, ServiceDescriptor, ActionDescriptor, EventDescriptor } from "./contract/descriptor.js";
export type {
  CallMiddleware, CallNext, CallOptions, EmitOptions, HostMesh, MeshClient, Peer, ServiceClient, ServiceInfo, ServiceSource,
  Strategy, WaitForOptions,
} from "./contract/mesh-client.js";
export type { StandardSchemaV1 } from "./contract/standard-schema.js";
export type { EmbeddedPostgres } from "./storage/embedded.js";

// For authors of plugins
export { PostgresListenEventBus } from "./runtime/bus.js";
export { fullActionName } from "./contract/descriptor.js";
export type { EventBusOptions } from "./runtime/bus.js";
export type {
  ActionRegistration, BalancedRegistration, BroadcastRegistration, CallChain, CancellationView, ContextExtensionRegistration,
  CronRegistration, DeadlineView, Dispatcher, HealthReport, HookRegistration, HostEnv, HostExtensionRegistration,
  LifecycleRegistration, LiveRegistration, Plugin, RawRouteRegistration, RouteRegistration, Scope, ScopedContext,
  SubscriptionRegistration, Target, UpgradeRegistration, WorkerRegistration,
} from "./contract/registration.js";
export type { EventBus, IncomingEvent, IncomingJob, Outbox, OutgoingEvent, OutgoingJob, Reach } from "./contract/messaging.js";
export type { OwnedTransaction, Session, Storage, Transaction } from "./contract/storage.js";
