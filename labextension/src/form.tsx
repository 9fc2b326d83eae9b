/** The form by which a cluster is started. */

import React, { useState } from 'react';

import type { ISite } from './api';
import type { Model } from './model';

/** What is asked for, by the names that `hpcnb.Cluster` has for it; what is left empty comes from the site's entry. */
const WISHES: { key: string; label: string; hint: string; number?: boolean; slurm?: boolean }[] = [
  { key: 'nodes', label: 'Nodes', hint: '1', number: true },
  { key: 'walltime', label: 'Walltime', hint: '1h' },
  { key: 'partition', label: 'Partition', hint: 'default', slurm: true },
  { key: 'account', label: 'Account', hint: 'default', slurm: true },
  { key: 'workers_per_node', label: 'Workers per node', hint: 'one per core', number: true }
];

export function Form({ model, sites }: { model: Model; sites: ISite[] }): JSX.Element {
  const [site, setSite] = useState('');
  const [name, setName] = useState('');
  const [wishes, setWishes] = useState<{ [key: string]: string }>({});
  const [said, setSaid] = useState('');
  const [busy, setBusy] = useState(false);

  const chosen = sites.find(one => one.name === site) ?? sites.find(one => one.default);
  const asked = WISHES.filter(wish => !wish.slurm || chosen?.batch === 'slurm');
  const start = async () => {
    setBusy(true);
    setSaid('');
    const given = asked.filter(({ key }) => wishes[key]).map(({ key, number }) => [key, number ? Number(wishes[key]) : wishes[key]]);
    try {
      await model.api.start(chosen?.name ?? '', name, Object.fromEntries(given));
      setName('');
    } catch (error) {
      setSaid((error as Error).message);
    } finally {
      setBusy(false);
    }
  };

  return (
    <form
      className="hpcnb-form"
      onSubmit={event => {
        event.preventDefault();
        void start();
      }}
    >
      <h2>Start another</h2>
      <label>
        Site
        <select className="jp-mod-styled" value={chosen?.name ?? ''} onChange={event => setSite(event.target.value)}>
          {sites.map(one => (
            <option key={one.name} value={one.name}>
              {one.host ? `${one.name} (${one.host})` : one.name}
            </option>
          ))}
        </select>
      </label>
      <label>
        Name
        <input className="jp-mod-styled" value={name} placeholder={chosen?.name} onChange={event => setName(event.target.value)} />
      </label>
      {asked.map(({ key, label, hint, number }) => (
        <label key={key}>
          {label}
          <input
            className="jp-mod-styled"
            type={number ? 'number' : 'text'}
            min={1}
            name={key}
            placeholder={hint}
            value={wishes[key] ?? ''}
            onChange={event => setWishes({ ...wishes, [key]: event.target.value })}
          />
        </label>
      ))}
      <button type="submit" className="jp-mod-styled jp-mod-accept" disabled={busy || !chosen}>
        {busy ? 'Submitting …' : 'Start'}
      </button>
      {said && <pre className="hpcnb-trouble">{said}</pre>}
    </form>
  );
}
