/** What the panel's buttons do with queues. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { InputDialog, MainAreaWidget, showErrorMessage } from '@jupyterlab/apputils';

import type { Api } from './api';
import { icon } from './icon';
import type { IQueueActions } from './queuesection';
import { TasksView } from './tasks';

export function queueActions(app: JupyterFrontEnd, api: Api): IQueueActions {
  const told = async (name: string, work: Promise<unknown>): Promise<void> => {
    try {
      await work;
    } catch (error) {
      await showErrorMessage(name, error as Error);
    }
  };
  return {
    tasks: async (site, { name }) => {
      const widget = new MainAreaWidget({ content: new TasksView(api, site, name) });
      widget.title.label = `Tasks of ${name}`;
      widget.title.icon = icon;
      widget.title.closable = true;
      app.shell.add(widget, 'main');
    },
    pause: (site, { name }) => told(name, api.pause(site, name)),
    resume: (site, { name }) => told(name, api.resume(site, name)),
    retry: (site, { name }) => told(name, api.retry(site, name)),
    launch: async (site, { name }) => {
      const asked = await InputDialog.getNumber({ title: `Jobs that drain ${name}`, label: 'How many', value: 1, okLabel: 'Launch' });
      if (asked.button.accept && asked.value !== null) {
        await told(name, api.launch(site, name, asked.value));
      }
    },
    login: site => told(site, api.login(site))
  };
}
