/** One cluster in the panel. */

import React from 'react';

import { Action } from './action';
import type { ICluster, IGroup } from './api';
import { facts, lives, MARKS, nodes, plural, progress, remaining, state, visible } from './words';

/** What can be done to a cluster; each resolves when it is done, and has told the user if it was refused. */
export interface IActions {
  insert: (cluster: ICluster) => Promise<void>;
  scale: (cluster: ICluster, nodes: number) => Promise<void>;
  keep: (cluster: ICluster) => Promise<void>;
  dashboard: (cluster: ICluster) => Promise<void>;
  logs: (cluster: ICluster) => Promise<void>;
  login: (cluster: ICluster) => Promise<void>;
  end: (cluster: ICluster) => Promise<void>;
}

/** Drawn again only when its status has changed, or the time while it waits: there may be hundreds. */
export const Card = React.memo(function ({ cluster, now, actions }: { cluster: ICluster; now: number; actions: IActions }): JSX.Element {
  const { name, site, resources } = cluster.spec;
  const has = nodes(cluster);
  const ready = cluster.state === 'ready';
  return (
    <section className="hpcnb-card" data-state={cluster.error ? 'failed' : cluster.state} data-name={name}>
      <header>
        <span className="hpcnb-mark">{cluster.error ? '✗' : MARKS[cluster.state]}</span>
        <b>{name}</b>
        {name !== site && <span> on {site}</span>}
        <span className="hpcnb-state">{state(cluster, now)}</span>
      </header>
      {facts(cluster).map(fact => (
        <p key={fact}>{fact}</p>
      ))}
      {lives(cluster) && (cluster.counts.groups ?? []).map(group => <Work key={group.id} group={group} />)}
      {lives(cluster) && cluster.walltime_left !== null && (
        <Walltime left={cluster.walltime_left} whole={resources.walltime} />
      )}
      {lives(cluster) && (
        <p className="hpcnb-nodes">
          {plural(has, 'node')}
          {ready && <Action label="−" title="One node fewer" off={has <= resources.nodes} run={() => actions.scale(cluster, has - 1)} />}
          {ready && <Action label="+" title="One node more, by another batch job" run={() => actions.scale(cluster, has + 1)} />}
        </p>
      )}
      <footer>
        {'login' in cluster.notices && <Action label="Log in" run={() => actions.login(cluster)} />}
        {lives(cluster) && <Action label="Insert code" title="A cell that attaches this notebook" run={() => actions.insert(cluster)} />}
        {'idle' in cluster.notices && <Action label="Keep" title="Begin its idle time anew" run={() => actions.keep(cluster)} />}
        {ready && <Action label="Dashboard" title="Dask's own dashboard, in another page" run={() => actions.dashboard(cluster)} />}
        <Action label="Logs" run={() => actions.logs(cluster)} />
        {lives(cluster) && <Action label="End" title="End it and its batch jobs" run={() => actions.end(cluster)} />}
      </footer>
    </section>
  );
});

/** A group of calls that goes on: a bar and its numbers. */
function Work({ group }: { group: IGroup }): JSX.Element {
  const parts = [
    ['Succeeded', group.done],
    ['Failed', group.failed],
    ['Killed', group.cancelled],
    ['Running', group.running],
    ['Pending', group.waiting]
  ] as const;
  return (
    <div className="hpcnb-work">
      <b>{visible(group.label, 40)}</b> {progress(group)}
      <div className="hpcnb-bar">
        {parts.map(([state, n]) => n > 0 && <span key={state} data-state={state} style={{ flexGrow: n }} />)}
      </div>
    </div>
  );
}

function Walltime({ left, whole }: { left: number; whole: number }): JSX.Element {
  return (
    <p className="hpcnb-walltime" data-short={left < 600}>
      <progress max={whole} value={left} /> {remaining(left)} left
    </p>
  );
}
