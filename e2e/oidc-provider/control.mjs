// The control interface for tests. It has its own port, so that it works while the server refuses connections:
//
//   GET    /stats             counts since the start
//   PATCH  /settings          { accessTokenTTL, rotate, disabledAccounts }, each optional
//   POST   /faults            adds a fault (faults.mjs);  DELETE /faults  removes all faults
//   GET    /held?count=n      answers once faults hold n requests
//   POST   /release           continues the held requests
//   PUT    /listening         { on }: false refuses connections like a stopped server; tokens and sessions survive
import { createServer } from 'node:http';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { Faults } from './faults.mjs';

async function read(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

export class Control {
  constructor(server, port, settings) {
    this.server = server;
    this.port = port;
    this.accessTokenTTL = settings.accessTokenTTL;
    this.rotate = settings.rotate;
    this.disabledAccounts = new Set();
    this.faults = new Faults();
    this.presented = new Set(); // hashes of the refresh tokens of all requests
    this.stats = {
      requests: {}, // by method and path
      grants: {}, // answered token requests by grant_type: { ok, errors }
      repeatedRefreshTokens: 0, // token requests with a refresh token of an earlier request, granted or not
      reuseDetected: 0, // repeated refresh tokens for which oidc-provider revoked the family
      grantErrors: [], // with the internal reason, which answers do not contain
      backchannelLogouts: 0,
      backchannelErrors: [],
      serverErrors: [],
    };
  }

  watch(provider) {
    const { stats } = this;
    const count = (ctx, result) => {
      const grant = stats.grants[ctx.oidc?.params?.grant_type ?? ''] ??= { ok: 0, errors: 0 };
      grant[result] += 1;
    };
    provider.on('grant.success', (ctx) => count(ctx, 'ok'));
    provider.on('grant.error', (ctx, err) => {
      count(ctx, 'errors');
      stats.grantErrors.push(`${err.message}: ${err.error_detail ?? err.error_description}`);
      if (err.error_detail === 'refresh token already used') stats.reuseDetected += 1;
    });
    provider.on('backchannel.success', () => { stats.backchannelLogouts += 1; });
    provider.on('backchannel.error', (ctx, err) => stats.backchannelErrors.push(`${err.message} ${err.cause ?? ''}`));
    provider.on('server_error', (ctx, err) => stats.serverErrors.push(err.stack));
  }

  middleware() {
    return async (ctx, next) => {
      const name = `${ctx.method} ${ctx.path.replace(/^\/(interaction|automatic|auth)\/.*/, '/$1/…')}`;
      this.stats.requests[name] = (this.stats.requests[name] ?? 0) + 1;
      let grantType;
      if (ctx.method === 'POST' && ctx.path === '/token') {
        ctx.req.body = await read(ctx.req); // oidc-provider accepts a body that other code has read
        const params = new URLSearchParams(ctx.req.body);
        grantType = params.get('grant_type');
        if (params.has('refresh_token')) this.countPresented(params.get('refresh_token'));
      }
      return this.faults.apply(ctx, grantType, next);
    };
  }

  countPresented(refreshToken) {
    const hash = createHash('sha256').update(refreshToken).digest('base64');
    if (this.presented.has(hash)) this.stats.repeatedRefreshTokens += 1;
    this.presented.add(hash);
  }

  async listen() {
    const server = createServer(async (request, response) => {
      try {
        const body = await this.answer(request, new URL(request.url, 'http://control'));
        response.setHeader('content-type', 'application/json').end(JSON.stringify(body ?? {}));
      } catch (err) {
        response.writeHead(400).end(String(err));
      }
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return `http://127.0.0.1:${server.address().port}`;
  }

  async answer(request, url) {
    const body = async () => JSON.parse(await read(request));
    switch (`${request.method} ${url.pathname}`) {
      case 'GET /stats': return this.stats;
      case 'PATCH /settings': return this.change(await body());
      case 'POST /faults': return this.faults.add(await body());
      case 'DELETE /faults': return this.faults.clear();
      case 'GET /held': return this.faults.held(Number(url.searchParams.get('count')));
      case 'POST /release': return this.faults.release();
      case 'PUT /listening': return this.listening((await body()).on);
      default: throw new Error(`unknown control request: ${request.method} ${url.pathname}`);
    }
  }

  change({ accessTokenTTL = this.accessTokenTTL, rotate = this.rotate, disabledAccounts }) {
    this.accessTokenTTL = accessTokenTTL;
    this.rotate = rotate;
    if (disabledAccounts) this.disabledAccounts = new Set(disabledAccounts);
  }

  async listening(on) {
    if (on === this.server.listening) return;
    if (on) {
      this.server.listen(this.port, '127.0.0.1');
      await once(this.server, 'listening');
      return;
    }
    const closed = once(this.server, 'close');
    this.server.close();
    this.server.closeAllConnections();
    await closed;
  }
}
