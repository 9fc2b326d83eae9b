/** A cluster in words: pure, from its status and the time. */

import type { ICluster, IGroup, IQueue, State, TaskState } from './api';

const TASK_STATES: TaskState[] = ['Succeeded', 'Failed', 'Killed', 'Running', 'Pending', 'Waiting'];

export const MARKS: { [state in State]: string } = {
  requested: '◌',
  queued: '◔',
  starting: '◑',
  ready: '●',
  unreachable: '◍',
  draining: '◒',
  ended: '○'
};

/** `0:14`, `1:02:03`. */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const pad = (part: number) => String(part).padStart(2, '0');
  return hours ? `${hours}:${pad(minutes)}:${pad(rest)}` : `${minutes}:${pad(rest)}`;
}

/** Time that is left, without what is too small to matter: `95 min`, `3 h 20 min`, `29 d 23 h`. */
export function remaining(seconds: number): string {
  const minutes = Math.ceil(seconds / 60);
  const hours = Math.floor(minutes / 60);
  if (minutes < 120) {
    return `${minutes} min`;
  }
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** Whether it still has to become ready. */
export const waits = (cluster: ICluster): boolean => ['requested', 'queued', 'starting'].includes(cluster.state);

export const lives = (cluster: ICluster): boolean => cluster.state !== 'ended';

/** The state, and for how long while one waits. */
export function state(cluster: ICluster, now: number): string {
  return waits(cluster) && cluster.changed ? `${cluster.state} ${clock(now - cluster.changed)}` : cluster.state;
}

/** What there is to say beyond the state, a line each. */
export function facts(cluster: ICluster): string[] {
  const { counts, detail } = cluster;
  const found = detail ? [detail] : [];
  if (cluster.state === 'ready' || cluster.state === 'unreachable') {
    const busy = Object.entries(counts.tasks).filter(([name]) => ['processing', 'queued', 'waiting', 'erred'].includes(name));
    found.push(`${plural(counts.workers, 'worker')}, ${plural(counts.cores, 'core')}`);
    found.push(...(busy.length ? [busy.map(([name, n]) => `${n.toLocaleString('en')} ${name}`).join(', ')] : []));
  }
  return [...found, ...Object.values(cluster.notices)];
}

export const plural = (n: number, word: string): string => `${n.toLocaleString('en')} ${word}${n === 1 ? '' : 's'}`;

/** Nodes that it has, or has asked for: each further job adds one. */
export const nodes = (cluster: ICluster): number => cluster.spec.resources.nodes + Math.max(0, cluster.jobs.length - 1);

/** A cell that attaches a notebook to it. */
export const code = (cluster: ICluster): string => `%load_ext hpcnb\n%hpc attach ${cluster.spec.name}`;

/** A text of somebody else's in one line: what would move or hide other text is shown as a sign. */
export function visible(text: string, most = 200): string {
  const cut = text.length > most ? `${text.slice(0, most)}…` : text;
  return printable(cut).replace(/[\t\n\r]/g, control);
}

/** The same for lines of text. */
export const printable = (text: string): string =>
  text
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, control)
    .replace(/[\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069]/g, '\ufffd');

const control = (sign: string): string => String.fromCharCode(0x2400 + sign.charCodeAt(0));

/** How many tasks a queue has in each state that is not empty. */
export const tally = (queue: IQueue): [TaskState, number][] =>
  TASK_STATES.map((name): [TaskState, number] => [name, queue.ntasks[name]]).filter(([, n]) => n > 0);

/** How it stands with a group of calls. */
export function progress(group: IGroup): string {
  const { waiting, running, done, failed, cancelled, rate } = group;
  const total = waiting + running + done + failed + cancelled;
  const said = (n: number, what: string) => (n ? [`${n.toLocaleString('en')} ${what}`] : []);
  return [
    `${done.toLocaleString('en')} of ${total.toLocaleString('en')} done`,
    ...said(failed, 'failed'),
    ...said(cancelled, 'cancelled'),
    ...said(running, 'running'),
    ...said(rate, 'a second')
  ].join(', ');
}
