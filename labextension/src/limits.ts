/** What a site allows, in words, and whether a request can be met: pure. The server and the site judge as well. */

import type { ILimits, IPartition } from './api';
import { plural } from './words.js'; // with its ending, for Node

const SIZES = [86400, 3600, 60, 1] as const;
const NUMBER = '[0-9]{1,9}(?:\\.[0-9]{1,9})?';
const DURATIONS = [
  new RegExp(`^()()()(${NUMBER})$`),
  new RegExp(`^(?:(${NUMBER})d)? ?(?:(${NUMBER})h)? ?(?:(${NUMBER})m)? ?(?:(${NUMBER})s)?$`),
  /^()(?:([0-9]{1,9}):)?([0-9]{1,9}):([0-9]{1,2})$/,
  /^([0-9]{1,9})-([0-9]{1,2})(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?$/
];

/** The seconds of a duration, as hpcnb.units reads it; NaN where it would refuse it. */
export function seconds(text: string): number {
  const asked = text.trim().toLowerCase();
  const found = asked && DURATIONS.map(form => form.exec(asked)).find(Boolean);
  return found ? Math.ceil(SIZES.reduce((sum, size, i) => sum + Number(found[i + 1] ?? 0) * size, 0)) : NaN;
}

/** `1h30m`. */
export function duration(whole: number): string {
  let rest = whole;
  const parts = SIZES.map((size, i) => {
    const count = Math.floor(rest / size);
    rest -= count * size;
    return count ? `${count}${'dhms'[i]}` : '';
  });
  return parts.join('') || '0s';
}

/** Its limits, in a few words. */
export function allows(one: IPartition): string {
  const cores = one.cores === null ? '' : ` of ${plural(one.cores, 'core')}`;
  const walltime = one.walltime === null ? '' : `, up to ${duration(one.walltime)}`;
  return `${plural(one.nodes, 'node')}${cores}${walltime}${one.up ? '' : ', down'}`;
}

/** The partition that a request goes to, where that is a single one that is known. */
export function target(limits: ILimits, partition: string): IPartition | undefined {
  const name = partition || limits.defaults.partition;
  return limits.partitions.find(one => (name ? one.name === name : one.default));
}

/** Walltimes to choose from: the usual ones below a limit, and the limit. */
export function walltimes(limit: number | null | undefined): string[] {
  const usual = [900, 1800, 3600, 7200, 14400, 43200, 86400, 172800];
  return (limit ? [...usual.filter(one => one < limit), limit] : usual).map(duration);
}

/** What keeps a request from ever starting; empty: nothing that is known here. */
export function complaint(limits: ILimits, wishes: { [wish: string]: string }): string {
  const one = target(limits, wishes['partition'] ?? '');
  const nodes = Number(wishes['nodes'] || limits.defaults.nodes);
  const workers = Number(wishes['workers_per_node'] || 1);
  for (const [what, n] of [['Nodes', nodes], ['Workers per node', workers]] as const) {
    if (!Number.isInteger(n) || n < 1) {
      return `${what}: a whole number from 1 on.`;
    }
  }
  if (!one || limits.defaults.qos) {
    return ''; // a quality of service may lift the limits of a partition
  }
  if (nodes > one.nodes) {
    return `Partition ${one.name} gives one job ${plural(one.nodes, 'node')} at most.`;
  }
  if (one.cores !== null && workers > one.cores) {
    return `The nodes of partition ${one.name} have ${plural(one.cores, 'core')}.`;
  }
  const walltime = wishes['walltime'] ? seconds(wishes['walltime']) : limits.defaults.walltime;
  if (one.walltime !== null && walltime > one.walltime) {
    return `Partition ${one.name} allows ${duration(one.walltime)} at most.`;
  }
  return '';
}
