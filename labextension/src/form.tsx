/** The form that starts a cluster, built from what the site lets its user choose from. */

import React, { useEffect, useState } from 'react';

import { Action } from './action';
import type { Api, ILimits, ISite } from './api';
import { allows, complaint, duration, target, walltimes } from './limits';
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
  const { limits, refused, look, again } = useLimits(model.api, chosen);
  const wrong = limits ? complaint(limits, wishes) : '';
  const defaults: { [wish: string]: string } = limits
    ? { ...limits.defaults, nodes: String(limits.defaults.nodes), walltime: duration(limits.defaults.walltime) }
    : {};
  const asked = WISHES.filter(wish => !wish.slurm || chosen?.batch === 'slurm');
  const move = (to: string) => {
    const { partition, account, ...elsewhere } = wishes; // those are of the site that is left
    setSite(to);
    look();
    setWishes(elsewhere);
  };
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
      onFocus={look}
      onSubmit={event => {
        event.preventDefault();
        if (!wrong) {
          void start();
        }
      }}
    >
      <h2>Start another</h2>
      <label>
        Site
        <select className="jp-mod-styled" value={chosen?.name ?? ''} onChange={event => move(event.target.value)}>
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
      {refused && chosen && (
        <div className="hpcnb-none">
          What it allows is not known: {refused} <Action label="Log in" run={() => model.api.login(chosen.name).then(again, again)} />
        </div>
      )}
      {asked.map(({ key, label, hint, number }) => (
        <label key={key}>
          {label}
          <Wish
            name={key}
            number={number ?? false}
            hint={defaults[key] || hint}
            limits={limits}
            wishes={wishes}
            change={text => setWishes({ ...wishes, [key]: text })}
          />
        </label>
      ))}
      <button type="submit" className="jp-mod-styled jp-mod-accept" disabled={busy || !chosen || Boolean(wrong)}>
        {busy ? 'Submitting …' : 'Start'}
      </button>
      {(wrong || said) && <pre className="hpcnb-trouble">{wrong || said}</pre>}
    </form>
  );
}

/** What a site allows, once the form is used: to look means a connection there. */
export function useLimits(api: Pick<Api, 'limits'>, site: ISite | undefined) {
  const [used, setUsed] = useState(false);
  const [asked, setAsked] = useState(0);
  const [limits, setLimits] = useState<ILimits | null>(null);
  const [refused, setRefused] = useState('');

  useEffect(() => {
    let current = true;
    setLimits(null);
    setRefused('');
    if (used && site?.batch === 'slurm') {
      api.limits(site.name).then(
        found => current && setLimits(found),
        error => current && setRefused(error.message)
      );
    }
    return () => {
      current = false;
    };
  }, [used, asked, site?.name]);

  return { limits, refused, look: () => setUsed(true), again: () => setAsked(asked + 1) };
}

interface IWish {
  name: string;
  number: boolean;
  hint: string;
  limits: ILimits | null;
  wishes: { [key: string]: string };
  change: (text: string) => void;
}

/** One field: a choice where the site names what there is, else free. */
export function Wish({ name, number, hint, limits, wishes, change }: IWish): JSX.Element {
  const value = wishes[name] ?? '';
  const partition = limits && target(limits, wishes['partition'] ?? '');
  const usual = limits && target(limits, '');
  const choices: { [key: string]: [string, string][] } = {
    partition: (limits?.partitions ?? []).map(one => [one.name, `${one.name} (${allows(one)})`]),
    account: (limits?.accounts ?? []).map(one => [one, one])
  };
  const given = choices[name];
  if (given?.length) {
    return (
      <>
        <select className="jp-mod-styled" name={name} value={value} onChange={event => change(event.target.value)}>
          <option value="">{(name === 'partition' && usual?.name) || hint}</option>
          {given.map(([choice, text]) => (
            <option key={choice} value={choice}>
              {text}
            </option>
          ))}
        </select>
        {name === 'partition' && partition && <small>{allows(partition)}</small>}
      </>
    );
  }
  const most = name === 'nodes' ? partition?.nodes : undefined;
  return (
    <>
      <input
        className="jp-mod-styled"
        type={number ? 'number' : 'text'}
        min={number ? (name === 'core_hours' ? 0 : 1) : undefined}
        step={name === 'core_hours' ? 'any' : undefined}
        max={most}
        name={name}
        list={name === 'walltime' ? 'hpcnb-walltimes' : undefined}
        placeholder={most ? `${hint} (up to ${most})` : hint}
        value={value}
        onChange={event => change(event.target.value)}
      />
      {name === 'walltime' && (
        <datalist id="hpcnb-walltimes">
          {walltimes(partition?.walltime).map(one => (
            <option key={one} value={one} />
          ))}
        </datalist>
      )}
    </>
  );
}
