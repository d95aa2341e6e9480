// Authorization server for the end-to-end tests: node oidc-provider on 127.0.0.1.
//
// Usage: node op.mjs <settings as JSON>, which ../op/oidcprovider.go writes. Once the server serves, it prints one line:
// `ready` and a JSON object with the issuer and the URL of the control interface (control.mjs).
import { createServer } from 'node:http';
import { once } from 'node:events';
import { randomBytes } from 'node:crypto';
import { Provider } from 'oidc-provider';
import { Control } from './control.mjs';
import { automatic } from './interactions.mjs';

const settings = JSON.parse(process.argv[2]);

// The issuer contains the port, so the server listens before the provider exists.
const server = createServer();
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const { port } = server.address();
const issuer = `http://127.0.0.1:${port}`;

const control = new Control(server, port, settings);

const groups = { alice: ['staff', 'admins'], bob: ['staff'] };

const provider = new Provider(issuer, {
  clients: settings.clients,
  jwks: settings.jwks,
  cookies: { keys: [randomBytes(32).toString('hex')] },
  scopes: ['openid', 'offline_access', 'profile', 'email', 'groups'],
  claims: { openid: ['sub'], profile: ['name', 'preferred_username'], email: ['email', 'email_verified'], groups: ['groups'], auth_time: null, sid: null },
  conformIdTokenClaims: false, // puts the claims of the scopes into the ID token, too, as most servers do
  pkce: { required: () => true },
  async findAccount(ctx, id) {
    if (control.disabledAccounts.has(id)) return undefined; // the answer to a refresh is then invalid_grant
    return {
      accountId: id,
      claims: async () => ({
        sub: id, name: id, preferred_username: id, email: `${id}@example.test`, email_verified: true, groups: groups[id] ?? [],
      }),
    };
  },
  rotateRefreshToken: () => control.rotate,
  issueRefreshToken: async (ctx, client, code) => client.grantTypeAllowed('refresh_token')
    && (!settings.requireOfflineAccess || code.scopes.has('offline_access')),
  // The package's own fetch refuses loopback addresses, but the tests' back-channel logout URIs are loopback addresses.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
  features: {
    devInteractions: { enabled: settings.forms },
    introspection: { enabled: true },
    jwtUserinfo: { enabled: true }, // for clients that are registered for it
    revocation: { enabled: true },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    pushedAuthorizationRequests: { enabled: true },
    dPoP: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: async () => true,
      getResourceServerInfo: async (ctx, resource) => ({
        scope: 'api:read api:write', audience: resource, accessTokenTTL: control.accessTokenTTL, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  interactions: { url: (ctx, interaction) => `/automatic/${interaction.uid}` },
  ttl: {
    AccessToken: (ctx, token) => token.resourceServer?.accessTokenTTL ?? control.accessTokenTTL,
    AuthorizationCode: 60,
    IdToken: 300,
    Interaction: 600,
    Grant: 86400,
    Session: 86400,
    RefreshToken: 3600,
  },
});

control.watch(provider);
provider.use(control.middleware());
if (!settings.forms) provider.use(automatic(provider));
server.on('request', provider.callback());
const controlURL = await control.listen();

process.on('SIGTERM', () => process.exit(0));
console.log(`ready ${JSON.stringify({ issuer, control: controlURL })}`);
