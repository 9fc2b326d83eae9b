/** The REST interface of hpcnb's server extension, typed; see hpcnb/server/openapi.yaml. */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import { Refusal } from './refusal.js';

export type State = 'requested' | 'queued' | 'starting' | 'ready' | 'unreachable' | 'draining' | 'ended';

export interface IJob {
  job_id: string;
  state: string;
  reason: string;
  nodes: string[];
  time_left: number | null;
  estimated_start: number | null;
  position: number | null;
}

/** A group of calls that goes on. */
export interface IGroup {
  id: string;
  label: string;
  waiting: number;
  running: number;
  done: number;
  failed: number;
  cancelled: number;
  rate: number;
}

export interface ICluster {
  id: string;
  spec: { site: string; name: string; resources: { nodes: number; walltime: number } };
  state: State;
  detail: string;
  jobs: IJob[];
  walltime_left: number | null;
  link: string;
  route: string;
  counts: { workers: number; cores: number; tasks: { [state: string]: number }; groups?: IGroup[] };
  error: { [part: string]: string } | null;
  notices: { [topic: string]: string };
  created: number;
  changed: number;
}

export interface ISite {
  name: string;
  host: string;
  batch: string;
  default: boolean;
}

export interface IPartition {
  name: string;
  default: boolean;
  up: boolean;
  walltime: number | null;
  nodes: number;
  cores: number | null;
}

/** What a site lets its user choose from, and what its entry chooses. */
export interface ILimits {
  partitions: IPartition[];
  accounts: string[];
  defaults: { nodes: number; walltime: number; partition: string; account: string; qos: string };
}

export interface IPiece {
  text: string;
  offset: number;
  next: number;
}

export type TaskState = 'Succeeded' | 'Failed' | 'Killed' | 'Running' | 'Pending' | 'Waiting';

export interface IQueue {
  name: string;
  user: string;
  state: 'Active' | 'Paused';
  ntasks: { [state in TaskState]: number };
}

export interface ITask {
  id: number;
  state: TaskState;
  priority: number;
  attempts: number;
  task: unknown;
  result: unknown;
}

/** Calls of the interface, with the settings (base URL, token) of a Jupyter server. */
export class Api {
  constructor(readonly settings: ServerConnection.ISettings = ServerConnection.makeSettings()) {}

  clusters = async (): Promise<ICluster[]> => (await this.call<{ clusters: ICluster[] }>('GET', 'clusters')).clusters;

  sites = async (): Promise<ISite[]> => (await this.call<{ sites: ISite[] }>('GET', 'sites')).sites;

  start = (site: string, name: string, wishes: { [wish: string]: string | number }): Promise<ICluster> =>
    this.call('POST', 'clusters', { site, name, wishes });

  end = (id: string): Promise<ICluster> => this.call('DELETE', `clusters/${id}`);

  scale = (id: string, nodes: number): Promise<ICluster> => this.call('POST', `clusters/${id}/scale`, { nodes });

  keep = (id: string): Promise<ICluster> => this.call('POST', `clusters/${id}/keep`);

  login = (site: string): Promise<unknown> => this.call('POST', `sites/${encodeURIComponent(site)}/login`);

  limits = (site: string): Promise<ILimits> => this.call('GET', `sites/${encodeURIComponent(site)}/limits`);

  /** The names of a cluster's logs. */
  logs = async (id: string): Promise<string[]> =>
    Object.keys((await this.call<{ logs: { [name: string]: string } }>('GET', `clusters/${id}/logs?most=0`)).logs);

  log = (id: string, name: string, offset: number, most: number): Promise<IPiece> =>
    this.call('GET', `clusters/${id}/logs/${encodeURIComponent(name)}?offset=${offset}&most=${most}`);

  queues = async (site: string): Promise<IQueue[]> =>
    (await this.call<{ queues: IQueue[] }>('GET', `queues?site=${encodeURIComponent(site)}`)).queues;

  tasks = (site: string, queue: string, state: string, after: number, most: number): Promise<{ tasks: ITask[]; next: number | null }> =>
    this.call('GET', `${of(site, queue, 'tasks')}&after=${after}&most=${most}${state && `&state=${state}`}`);

  /** What a task's attempt has printed after so many bytes of stdout and stderr; after -1: the end of both. */
  taskLog = async (site: string, queue: string, task: number, attempt: number, [out, err]: [number, number]) => {
    const path = `${of(site, queue, `tasks/${task}/log`)}&attempt=${attempt}&out=${out}&err=${err}`;
    const found = await this.call<{ text: string; state: string; out: number; err: number }>('GET', path);
    return { text: found.text, next: [found.out, found.err] as [number, number], over: found.state !== 'Running' };
  };

  pause = (site: string, queue: string): Promise<IQueue> => this.call('POST', of(site, queue, 'pause'));

  resume = (site: string, queue: string): Promise<IQueue> => this.call('POST', of(site, queue, 'resume'));

  retry = (site: string, queue: string): Promise<{ retried: number }> => this.call('POST', of(site, queue, 'retry'));

  launch = (site: string, queue: string, asked: object): Promise<{ jobs: string[] }> =>
    this.call('POST', of(site, queue, 'launch'), asked);

  /** Where Dask's dashboard of a cluster is, behind this server's own authentication. */
  dashboard = (id: string): string => URLExt.join(this.settings.baseUrl, 'proxy', 'hpcnb', id, 'status');

  /** The websocket's address. */
  get news(): string {
    const { wsUrl, token, appendToken } = this.settings;
    const url = URLExt.join(wsUrl, 'hpcnb', 'api', 'news');
    return appendToken && token ? `${url}?token=${encodeURIComponent(token)}` : url;
  }

  private async call<T>(method: string, path: string, body?: object): Promise<T> {
    const url = URLExt.join(this.settings.baseUrl, 'hpcnb', 'api', path);
    const init: RequestInit = { method, ...(body ? { body: JSON.stringify(body) } : {}) };
    const answer = await ServerConnection.makeRequest(url, init, this.settings);
    const said = await answer.json().catch(() => ({ message: `${answer.status} ${answer.statusText}` }));
    if (!answer.ok) {
      throw new Refusal(said.message);
    }
    return said as T;
  }
}

const of = (site: string, queue: string, what: string): string =>
  `queues/${encodeURIComponent(queue)}/${what}?site=${encodeURIComponent(site)}`;
